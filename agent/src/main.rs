//! The program; what it does is in the library beside it, where fuzz targets reach it too.

fn main() -> std::process::ExitCode {
    husk_agent::main()
}
