//! The model: what containers there are, and what each of their processes does.

use super::calls::{CONTAINERS, Call, Copied, FAILURE, PROCESSES, Program, Target};
use super::expectation::Expectation::{self, Answers, Blocks, Refused, Skip, Status};
use ttrpc::Code;

const KILLED: i32 = 128 + 9;
const TERMINATED: i32 = 128 + 15;

/// The containers there are.
#[derive(Default)]
pub(super) struct State {
    containers: [Option<Container>; CONTAINERS],
    /// Whose processes may still be on their way out.
    touched: Option<usize>,
}

struct Container {
    program: Program,
    started: bool,
    paused: bool,
    init: Process,
    further: [Process; PROCESSES],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Process {
    /// There is none, or its status was told.
    Unknown,
    Alive,
    /// `None`: the model does not say with which status.
    Dead(Option<i32>),
}

impl State {
    pub(super) fn exists(&self, container: usize) -> bool {
        self.get(container).is_some()
    }

    fn get(&self, container: usize) -> Option<&Container> {
        self.containers.get(container)?.as_ref()
    }

    /// What a call answers now.
    pub(super) fn expects(&self, call: &Call) -> Expectation {
        let lookup = Refused(Code::INVALID_ARGUMENT);
        let internal = Refused(Code::INTERNAL);
        match *call {
            Call::Create { container, program, .. } => {
                // That there is no such program is noticed before anybody says start.
                if self.exists(container) || program == Program::Missing { internal } else { Expectation::Ok }
            }
            Call::CreateBadly { .. } | Call::CreateSandbox => internal,
            Call::Start(container) => self.get(container).map_or(internal, Container::start),
            Call::Exec { container, process, program } => {
                self.get(container).map_or(internal, |container| container.exec(process, program))
            }
            Call::Signal { container, target: Target::Empty, signal: 9 } => {
                if self.exists(container) {
                    Expectation::Ok
                } else {
                    internal
                }
            }
            Call::Signal { container, target, signal } => {
                self.get(container).map_or(lookup, |container| match container.process(target) {
                    Process::Unknown => Refused(Code::NOT_FOUND),
                    // It comes when the container goes on.
                    Process::Alive if container.paused && signal != 9 => Skip,
                    _ => Expectation::Ok,
                })
            }
            Call::Wait { container, target } => {
                self.get(container).map_or(lookup, |container| match container.process(target) {
                    Process::Unknown => Refused(Code::NOT_FOUND),
                    Process::Alive => Blocks,
                    Process::Dead(status) => Status(status),
                })
            }
            Call::Read { container, target } => {
                self.get(container).map_or(lookup, |container| match container.process(target) {
                    Process::Unknown => Refused(Code::NOT_FOUND),
                    Process::Alive => Blocks,
                    Process::Dead(_) => Expectation::Ok,
                })
            }
            Call::CloseStdin { container, target } => {
                self.get(container).map_or(lookup, |container| match container.process(target) {
                    Process::Unknown => Refused(Code::NOT_FOUND),
                    _ => Expectation::Ok,
                })
            }
            Call::Pause(container) => self.get(container).map_or(lookup, Container::pause),
            Call::Resume(container) => self.get(container).map_or(lookup, |container| {
                match (container.paused, container.init) {
                    // What was killed while it was paused.
                    (true, init) if init != Process::Alive => Answers,
                    (true, _) => Expectation::Ok,
                    (false, _) => internal,
                }
            }),
            Call::Update { container, .. } | Call::Stats(container) => {
                if self.exists(container) {
                    Expectation::Ok
                } else {
                    lookup
                }
            }
            Call::Remove { container, .. } => {
                if self.exists(container) {
                    Expectation::Ok
                } else {
                    internal
                }
            }
            Call::CopyFile(Copied::Inside) => Expectation::Ok,
            Call::CopyFile(_) => internal,
        }
    }

    /// What a call has changed, given whether it was answered with success.
    pub(super) fn after(&mut self, call: &Call, ok: bool) {
        self.touched = None;
        match *call {
            Call::Create { container, program, .. } if ok => {
                self.containers[container] = Some(Container {
                    program,
                    started: false,
                    paused: false,
                    init: Process::Alive,
                    further: [Process::Unknown; PROCESSES],
                });
            }
            Call::Remove { container, .. } if ok => self.containers[container] = None,
            _ => {}
        }
        let (Call::Start(index)
        | Call::Exec { container: index, .. }
        | Call::Signal { container: index, .. }
        | Call::Wait { container: index, .. }
        | Call::Pause(index)
        | Call::Resume(index)) = *call
        else {
            return;
        };
        let Some(container) = self.containers.get_mut(index).and_then(Option::as_mut) else { return };
        container.after(call, ok);
        self.touched = Some(index);
    }

    /// A container whose processes may not all be where the model has them yet, and how many the model has.
    pub(super) fn unsettled(&self) -> Option<(usize, u64)> {
        let index = self.touched?;
        let container = self.get(index)?;
        let all = container.further.iter().chain([&container.init]);
        Some((index, all.filter(|process| **process == Process::Alive).count() as u64))
    }
}

impl Container {
    fn process(&self, target: Target) -> Process {
        match target {
            Target::Empty | Target::Container => self.init,
            Target::Process(process) => self.further[process],
        }
    }

    fn start(&self) -> Expectation {
        match (self.started, self.init, self.paused) {
            (true, ..) => Refused(Code::INTERNAL),
            (_, Process::Dead(_) | Process::Unknown, _) => Refused(Code::INTERNAL),
            // It would have to go on first.
            (_, _, true) => Refused(Code::INTERNAL),
            _ => Expectation::Ok,
        }
    }

    fn exec(&self, process: usize, program: Program) -> Expectation {
        let runs = self.started && self.init == Process::Alive;
        match (runs, self.further[process], program) {
            (false, ..) => Refused(Code::INTERNAL),
            // A frozen process sets nothing up.
            (true, ..) if self.paused => Refused(Code::INTERNAL),
            (_, Process::Alive | Process::Dead(_), _) => Refused(Code::INTERNAL),
            (.., Program::Missing) => Refused(Code::INTERNAL),
            _ => Expectation::Ok,
        }
    }

    fn pause(&self) -> Expectation {
        if self.paused || self.init != Process::Alive { Refused(Code::INTERNAL) } else { Expectation::Ok }
    }

    fn after(&mut self, call: &Call, ok: bool) {
        match *call {
            Call::Start(_) if self.start_was_tried() => match self.program {
                Program::Sleep => self.started = true,
                Program::Fail => {
                    self.started = true;
                    self.init_ends(Some(FAILURE));
                }
                Program::Missing => unreachable!("it was not created"),
            },
            Call::Exec { process, program, .. } if ok => {
                self.further[process] =
                    if program == Program::Fail { Process::Dead(Some(FAILURE)) } else { Process::Alive };
            }
            Call::Signal { target: Target::Empty, signal: 9, .. } => {
                self.init_ends(Some(KILLED));
                self.further.iter_mut().for_each(|process| process.ends(KILLED));
            }
            // Nothing that runs as the first process here minds SIGTERM, which then is SIGKILL.
            Call::Signal { target: Target::Empty | Target::Container, signal: 9 | 15, .. } => {
                self.init_ends(Some(KILLED));
            }
            Call::Signal { target: Target::Process(process), signal: 9, .. } => {
                self.further[process].ends(KILLED)
            }
            Call::Signal { target: Target::Process(process), signal: 15, .. } => {
                self.further[process].ends(TERMINATED);
            }
            Call::Wait { target, .. } if ok => match target {
                Target::Empty | Target::Container => self.init = Process::Unknown,
                Target::Process(process) => self.further[process] = Process::Unknown,
            },
            Call::Pause(_) if ok => self.paused = true,
            Call::Resume(_) if ok => self.paused = false,
            _ => {}
        }
    }

    fn start_was_tried(&self) -> bool {
        !self.started && self.init == Process::Alive && !self.paused
    }

    /// The first process of a pid namespace takes all others along.
    fn init_ends(&mut self, status: Option<i32>) {
        if self.init == Process::Alive {
            self.init = Process::Dead(status);
            self.further.iter_mut().for_each(|process| process.ends(KILLED));
        }
    }
}

impl Process {
    fn ends(&mut self, status: i32) {
        if *self == Process::Alive {
            *self = Process::Dead(Some(status));
        }
    }
}
