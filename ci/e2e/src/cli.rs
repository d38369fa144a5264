//! The `husk` binary, as a person or an engine would call it, with a state directory of the test's own.
