//! Filters are run here as the kernel would run them: an interpreter of the few instructions libseccomp writes.

use serde_json::{Value, json};

use super::*;

const ALLOW: u32 = 0x7fff_0000;
const LOGGED: u32 = 0x7ffc_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;

fn filter(spec: Value) -> Result<Filter, PlanError> {
    compile(&serde_json::from_value(spec).unwrap())
}

/// What a filter answers to a native system call.
fn answer(filter: &Filter, name: &str, args: &[u64]) -> u32 {
    let number = ScmpSyscall::from_name(name).unwrap().as_raw_syscall();
    // struct seccomp_data: number, architecture, instruction pointer, six arguments.
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_ne_bytes());
    data.extend_from_slice(&native().to_ne_bytes());
    data.extend_from_slice(&0_u64.to_ne_bytes());
    for index in 0..6 {
        data.extend_from_slice(&args.get(index).copied().unwrap_or(0).to_ne_bytes());
    }
    let word = |at: u32| u32::from_ne_bytes(data[at as usize..at as usize + 4].try_into().unwrap());
    let (mut at, mut register) = (0, 0_u32);
    loop {
        let bytes = filter.program[at].to_ne_bytes();
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let constant = u32::from_ne_bytes(bytes[4..].try_into().unwrap());
        at += 1;
        let jump = |condition: bool| usize::from(if condition { bytes[2] } else { bytes[3] });
        match code {
            0x20 => register = word(constant),
            0x54 => register &= constant,
            0x05 => at += constant as usize,
            0x15 => at += jump(register == constant),
            0x25 => at += jump(register > constant),
            0x35 => at += jump(register >= constant),
            0x06 => return constant,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// `AUDIT_ARCH_*` of this machine.
fn native() -> u32 {
    let spec = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["getpid"], "action": "SCMP_ACT_ERRNO" } ] });
    // The first thing a program does is to compare the architecture.
    let program = filter(spec).unwrap().program;
    u32::from_ne_bytes(program[1].to_ne_bytes()[4..].try_into().unwrap())
}

#[test]
fn every_action_becomes_its_number() {
    for (action, number, expected) in [
        ("SCMP_ACT_KILL", None, KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", None, KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", None, KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, TRAP),
        ("SCMP_ACT_ERRNO", None, ERRNO | 1),
        ("SCMP_ACT_ERRNO", Some(38), ERRNO | 38),
        ("SCMP_ACT_ERRNO", Some(0), ERRNO),
        ("SCMP_ACT_TRACE", Some(7), TRACE | 7),
        ("SCMP_ACT_LOG", None, LOGGED),
    ] {
        let mut rule = json!({ "names": ["mkdir", "getppid"], "action": action });
        if let Some(number) = number {
            rule["errnoRet"] = json!(number);
        }
        let filter = filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })).unwrap();
        assert_eq!(answer(&filter, "getppid", &[]), expected, "{action}");
        assert_eq!(answer(&filter, "getpid", &[]), ALLOW);
    }
    let strict = filter(json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
        { "names": ["getpid"], "action": "SCMP_ACT_ALLOW" } ] }))
    .unwrap();
    assert_eq!(answer(&strict, "getpid", &[]), ALLOW);
    assert_eq!(answer(&strict, "getppid", &[]), ERRNO | 38);
}

#[test]
fn every_operator_compares() {
    let with = |op: &str, value: u64, two: Option<u64>| {
        let mut arg = json!({ "index": 1, "value": value, "op": op });
        if let Some(two) = two {
            arg["valueTwo"] = json!(two);
        }
        let rule = json!({ "names": ["dup2"], "action": "SCMP_ACT_ERRNO", "args": [arg] });
        filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })).unwrap()
    };
    let big = 5 << 32 | 3;
    for (op, below, equal, above) in [
        ("SCMP_CMP_NE", true, false, true),
        ("SCMP_CMP_LT", true, false, false),
        ("SCMP_CMP_LE", true, true, false),
        ("SCMP_CMP_EQ", false, true, false),
        ("SCMP_CMP_GE", false, true, true),
        ("SCMP_CMP_GT", false, false, true),
    ] {
        let filter = with(op, big, None);
        for (value, refused) in [(big - 1, below), (big, equal), (big + 1, above)] {
            let expected = if refused { ERRNO | 1 } else { ALLOW };
            assert_eq!(answer(&filter, "dup2", &[0, value]), expected, "{op} {value:#x}");
        }
    }
    let masked = with("SCMP_CMP_MASKED_EQ", 0xf0, Some(0x20));
    assert_eq!(answer(&masked, "dup2", &[0, 0x2f]), ERRNO | 1);
    assert_eq!(answer(&masked, "dup2", &[0, 0x3f]), ALLOW);
}

#[test]
fn questions_about_several_arguments_must_all_hold_and_about_one_any() {
    let arg = |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let with = |args: Value| {
        let rule = json!({ "names": ["dup2"], "action": "SCMP_ACT_ERRNO", "args": args });
        filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })).unwrap()
    };
    let both = with(json!([arg(0, 1), arg(1, 2)]));
    assert_eq!(answer(&both, "dup2", &[1, 2]), ERRNO | 1);
    assert_eq!(answer(&both, "dup2", &[1, 3]), ALLOW);
    let either = with(json!([arg(0, 1), arg(0, 2)]));
    assert_eq!(answer(&either, "dup2", &[1]), ERRNO | 1);
    assert_eq!(answer(&either, "dup2", &[2]), ERRNO | 1);
    assert_eq!(answer(&either, "dup2", &[3]), ALLOW);
}

#[test]
fn what_engines_send_is_taken() {
    let flags =
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]);
    let rule = |name: &str, action: &str| json!({ "names": [name, "no_such_call"], "action": action });
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "flags": flags,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64",
                          "SCMP_ARCH_ARM", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64"],
        // Twice the same, and one that does what happens anyway.
        "syscalls": [rule("getpid", "SCMP_ACT_ALLOW"), rule("getpid", "SCMP_ACT_ALLOW"),
                     rule("getppid", "SCMP_ACT_ERRNO")],
    }))
    .unwrap();
    assert_eq!(filter.flags, LOG | SPEC_ALLOW);
    assert_eq!(answer(&filter, "getpid", &[]), ALLOW);
    assert_eq!(answer(&filter, "getppid", &[]), ERRNO | 1);
}

#[test]
fn what_cannot_be_filtered_is_refused_by_name() {
    let refused = |rule: Value| {
        filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })).unwrap_err().to_string()
    };
    let notify = refused(json!({ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }));
    assert_eq!(notify, "spec: seccomp action \"SCMP_ACT_NOTIFY\" is not supported");
    let errno = refused(json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000 }));
    assert_eq!(errno, "spec: seccomp errnoRet \"5000\" is not supported");
    let sixth = json!({ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" });
    let index = refused(json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [sixth] }));
    assert_eq!(index, "spec: seccomp argument \"6\" is not supported");
    assert!(filter(json!({ "defaultAction": "SCMP_ACT_NOTIFY" })).is_err());
    // No machine runs both.
    let both = json!(["SCMP_ARCH_S390X", "SCMP_ARCH_X86_64"]);
    let both = filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": both })).unwrap_err();
    assert!(both.to_string().contains("SCMP_ARCH_"), "{both}");
}
