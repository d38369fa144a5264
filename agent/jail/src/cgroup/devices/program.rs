//! Device rules as a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! The kernel runs it at each access with three numbers: kind and access, major, minor (`struct bpf_cgroup_dev_ctx`). The
//! program keeps the accesses that no rule has decided yet, and walks the rules from the last to the first. A rule that
//! forbids one of them ends it with no; one that allows takes them away, and none left is yes.

use super::DeviceRules;
use super::rules::{ANY_ACCESS, Kind};

/// One instruction, as the kernel reads it (Documentation/bpf/standardization/instruction-set.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    pub(crate) destination: u8,
    pub(crate) source: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

impl Instruction {
    /// Eight bytes in this machine's order. The two registers share a byte, the first in the half that comes first.
    pub(crate) fn encode(self) -> [u8; 8] {
        let (low, high) = match cfg!(target_endian = "big") {
            true => (self.source, self.destination),
            false => (self.destination, self.source),
        };
        let [a, b] = self.offset.to_ne_bytes();
        let [c, d, e, f] = self.immediate.to_ne_bytes();
        [self.code, low | high << 4, a, b, c, d, e, f]
    }
}

/// Operation codes: 64 bits wide, with an immediate operand unless said otherwise.
mod op {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const MOVE: u8 = 0xb7;
    pub(super) const MOVE_REGISTER: u8 = 0xbf;
    pub(super) const AND: u8 = 0x57;
    pub(super) const SHIFT_RIGHT: u8 = 0x77;
    pub(super) const JUMP: u8 = 0x05;
    pub(super) const JUMP_IF_ANY_BIT: u8 = 0x45;
    pub(super) const JUMP_IF_NOT_EQUAL: u8 = 0x55;
    pub(super) const EXIT: u8 = 0x95;
}

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// The program of a list of rules.
pub(super) fn of(rules: &DeviceRules) -> Vec<Instruction> {
    let mut out = vec![
        load(KIND, 0),
        Instruction { source: KIND, ..with(op::MOVE_REGISTER, UNDECIDED, 0) },
        with(op::SHIFT_RIGHT, UNDECIDED, 16),
        with(op::AND, KIND, 0xffff),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.0.iter().rev() {
        let kind = match rule.kind {
            Kind::Any => None,
            Kind::Block => Some(BLOCK),
            Kind::Char => Some(CHAR),
        };
        let number = |number: Option<u32>| number.map(|number| number as i32);
        let tests = [(KIND, kind), (MAJOR, number(rule.major)), (MINOR, number(rule.minor))];
        let tests: Vec<_> =
            tests.into_iter().filter_map(|(register, wanted)| Some((register, wanted?))).collect();
        let access = i32::from(rule.access);
        let verdict = if rule.allow {
            let [yes, exit] = answer(1);
            vec![
                with(op::AND, UNDECIDED, i32::from(ANY_ACCESS) & !access),
                jump(op::JUMP_IF_NOT_EQUAL, UNDECIDED, 0, 2),
                yes,
                exit,
            ]
        } else {
            let [no, exit] = answer(0);
            vec![jump(op::JUMP_IF_ANY_BIT, UNDECIDED, access, 1), jump(op::JUMP, 0, 0, 2), no, exit]
        };
        for (at, &(register, wanted)) in tests.iter().enumerate() {
            // Over the other tests and the verdict, to the next rule.
            let rest = tests.len() - at - 1 + verdict.len();
            out.push(jump(op::JUMP_IF_NOT_EQUAL, register, wanted, rest as i16));
        }
        out.extend(verdict);
        if tests.is_empty() && rule.access == ANY_ACCESS {
            // It fits every access: what stands before it in the list never comes into play.
            break;
        }
    }
    out.extend(answer(0));
    out
}

fn with(code: u8, destination: u8, immediate: i32) -> Instruction {
    Instruction { code, destination, source: 0, offset: 0, immediate }
}

fn load(destination: u8, offset: i16) -> Instruction {
    Instruction { source: CONTEXT, offset, ..with(op::LOAD_WORD, destination, 0) }
}

fn jump(code: u8, register: u8, immediate: i32, offset: i16) -> Instruction {
    Instruction { offset, ..with(code, register, immediate) }
}

fn answer(result: i32) -> [Instruction; 2] {
    [with(op::MOVE, RESULT, result), with(op::EXIT, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::super::rules::{MKNOD, READ, Rule, WRITE};
    use super::*;

    /// Runs a program as the kernel would, and panics at what its verifier would refuse.
    fn run(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers = [None; 11];
        let mut at = 0;
        for _ in 0..program.len() {
            let now = program[at];
            let (to, immediate) = (usize::from(now.destination), now.immediate as i64 as u64);
            let value = |registers: &[Option<u64>; 11]| registers[to].expect("a register that was set");
            let mut jumps = false;
            match now.code {
                op::LOAD_WORD => registers[to] = Some(u64::from(context[now.offset as usize / 4])),
                op::MOVE => registers[to] = Some(immediate),
                op::MOVE_REGISTER => registers[to] = registers[usize::from(now.source)],
                op::AND => registers[to] = Some(value(&registers) & immediate),
                op::SHIFT_RIGHT => registers[to] = Some(value(&registers) >> immediate),
                op::JUMP => jumps = true,
                op::JUMP_IF_ANY_BIT => jumps = value(&registers) & immediate != 0,
                op::JUMP_IF_NOT_EQUAL => jumps = value(&registers) != immediate,
                op::EXIT => return registers[0].expect("an answer"),
                other => panic!("operation {other:#x}"),
            }
            at += 1 + if jumps { usize::try_from(now.offset).expect("forwards only") } else { 0 };
        }
        panic!("no end");
    }

    fn rule(allow: bool, kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
        Rule { allow, kind, major, minor, access }
    }

    #[test]
    fn the_program_says_what_the_rules_say() {
        let lists = [
            vec![],
            DeviceRules::defaults().0,
            vec![rule(true, Kind::Any, None, None, ANY_ACCESS)],
            vec![
                rule(true, Kind::Any, None, None, ANY_ACCESS),
                rule(false, Kind::Block, Some(8), None, WRITE),
                rule(true, Kind::Block, Some(8), Some(1), WRITE | READ),
            ],
            vec![
                rule(false, Kind::Any, None, None, ANY_ACCESS),
                rule(true, Kind::Char, None, Some(3), READ),
                rule(false, Kind::Any, Some(1), None, MKNOD | READ),
                rule(true, Kind::Char, Some(1), Some(3), MKNOD),
            ],
        ];
        let mut allowed = 0;
        for list in lists {
            let rules = DeviceRules(list);
            let program = of(&rules);
            for (kind, number) in [(Kind::Block, 1), (Kind::Char, 2)] {
                for (major, minor) in [(1, 3), (1, 1), (5, 1), (8, 0), (8, 1), (136, 9), (4095, 1_048_575)] {
                    for access in 1..=ANY_ACCESS {
                        let got = run(&program, [number | u32::from(access) << 16, major, minor]);
                        let wanted = rules.decide(kind, major, minor, access);
                        assert_eq!(got == 1, wanted, "{kind:?} {major}:{minor} {access} of {rules:?}");
                        allowed += u32::from(wanted);
                    }
                }
            }
        }
        assert!(allowed > 100, "the rules allow something: {allowed}");
    }

    #[test]
    fn the_listing_of_one_rule() {
        let rules = DeviceRules(vec![rule(true, Kind::Char, Some(1), Some(3), READ)]);
        let listing: Vec<_> = of(&rules)
            .into_iter()
            .map(|i| {
                format!("{:02x} r{} r{} {:+} {}", i.code, i.destination, i.source, i.offset, i.immediate)
            })
            .collect();
        let wanted = [
            "61 r2 r1 +0 0",
            "bf r3 r2 +0 0",
            "77 r3 r0 +0 16",
            "57 r2 r0 +0 65535",
            "61 r4 r1 +4 0",
            "61 r5 r1 +8 0",
            "55 r2 r0 +6 2",
            "55 r4 r0 +5 1",
            "55 r5 r0 +4 3",
            "57 r3 r0 +0 5",
            "55 r3 r0 +2 0",
            "b7 r0 r0 +0 1",
            "95 r0 r0 +0 0",
            "b7 r0 r0 +0 0",
            "95 r0 r0 +0 0",
        ];
        assert_eq!(listing, wanted);
        #[cfg(target_endian = "little")]
        assert_eq!(load(KIND, 4).encode(), [0x61, 0x12, 4, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_can_never_decide_is_left_out() {
        let any = rule(true, Kind::Any, None, None, ANY_ACCESS);
        let with_more = DeviceRules(vec![rule(false, Kind::Block, None, None, READ), any]);
        assert_eq!(of(&with_more), of(&DeviceRules(vec![any])));
    }
}
