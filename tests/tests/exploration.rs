//! Every order of few events: three nodes, two clients, and whatever can happen next.
//!
//! From a starting point, every message on its way may be delivered (in any order), every node's
//! oldest write may become durable, any node may time out or crash and restart, and each client may
//! send its next request. All of it is tried, to a stated depth; a state that was reached before
//! with as much depth left is not explored again. The lab checks every safety property after every
//! event; on a share of the ends, faults stop and the cluster has to come to rest with a leader,
//! equal states and every request answered.
//!
//! A seed finds what is rare; this finds what is small. The depths are such that all of it takes
//! well under a minute.

use std::collections::HashMap;
use std::fmt::Write as _;

use quorlock_core::checksum::Checksum;
use quorlock_core::ids::SessionId;
use quorlock_core::message::{Op, Reply, Wait};
use quorlock_core::text::LockName;
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, LabOptions};

/// Something that can happen next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The message at this place of the mail arrives.
    Deliver(usize),
    /// A node's oldest write becomes durable.
    Persist(u64),
    /// A node's next deadline passes.
    TimeOut(u64),
    /// A node crashes and starts again at once from its disk.
    CrashAndRestart(u64),
    /// A client sends its next request.
    Request(usize),
}

/// A client and what it still has to ask for.
#[derive(Clone, Debug)]
struct Asking {
    session: SessionId,
    /// The node that it talks to.
    node: u64,
    /// The requests that it has not sent, the next one last.
    ops: Vec<Op>,
    sent: u64,
}

/// One state of the exploration.
#[derive(Clone, Debug)]
struct State {
    lab: Lab,
    clients: Vec<Asking>,
    time_outs: u32,
    crashes: u32,
}

/// How often each kind of event may still happen on one path.
struct Exploration {
    /// The depth left with which each state was explored.
    seen: HashMap<u64, u32>,
    states: u64,
    ends: u64,
    ends_checked: u64,
    path: Vec<Event>,
}

impl State {
    /// A cluster with these faults to come, and no clients.
    fn new(time_outs: u32, crashes: u32) -> Self {
        let lab = Lab::new(LabOptions::default());
        Self { lab, clients: Vec::new(), time_outs, crashes }
    }

    /// Everything that can happen now.
    fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = (0..self.lab.mail().len()).map(Event::Deliver).collect();
        for n in self.lab.ids() {
            if self.lab.lab_node(n).writes().len() > 0 {
                events.push(Event::Persist(n));
            }
            if self.time_outs > 0 {
                events.push(Event::TimeOut(n));
            }
            if self.crashes > 0 {
                events.push(Event::CrashAndRestart(n));
            }
        }
        let asking = self.clients.iter().enumerate().filter(|(_, client)| !client.ops.is_empty());
        events.extend(asking.map(|(position, _)| Event::Request(position)));
        events
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Deliver(position) => {
                self.lab.deliver_at(position);
            }
            Event::Persist(n) => {
                self.lab.persist(n);
            }
            Event::TimeOut(n) => {
                self.time_outs -= 1;
                self.lab.timeout(n);
            }
            Event::CrashAndRestart(n) => {
                self.crashes -= 1;
                self.lab.crash(n);
                self.lab.restart(n);
            }
            Event::Request(position) => self.request(position),
        }
    }

    fn request(&mut self, position: usize) {
        let client = &mut self.clients[position];
        let op = client.ops.pop().expect("only a client that has something to ask for asks");
        client.sent += 1;
        self.lab.submit(client.node, client.session, client.sent, op);
    }

    /// Tells states apart that can go on differently. The order of the mail is no difference,
    /// since it is delivered in every order.
    fn fingerprint(&self) -> u64 {
        let mut mail: Vec<String> =
            self.lab.mail().iter().map(|envelope| format!("{envelope:?}")).collect();
        mail.sort_unstable();
        let mut text = format!("{:?}{mail:?}", self.lab.now());
        for n in self.lab.ids() {
            write!(text, "{:?}", self.lab.lab_node(n)).expect("writing to a string");
        }
        let budget = (self.time_outs, self.crashes);
        write!(text, "{budget:?}{:?}", self.clients).expect("writing to a string");
        Checksum::of(text.as_bytes()).value()
    }

    /// Faults are over: the cluster elects a leader, every request is sent again and answered, and
    /// all nodes end up equal.
    fn check_progress(mut self) {
        self.lab.run(Duration::from_secs(3));
        let leader = self.lab.leader().expect("without faults, there is a leader");
        for client in &self.clients {
            for sequence in 1..=client.sent {
                // What is sent again need not be the same to be recognised: its number is.
                let op = Op::Cancel { waiting: quorlock_core::ids::Sequence::ZERO };
                self.lab.submit(leader, client.session, sequence, op);
            }
        }
        self.lab.run(Duration::from_millis(200));
        let digests: Vec<Checksum> = self.lab.ids().map(|n| self.lab.node(n).digest()).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "all nodes end up equal");
        for client in &self.clients {
            let conn = self.lab.connection(leader, client.session);
            let replies = self.lab.replies(conn);
            let waits = self.lab.node(leader).status().counts.waiters;
            let answered = replies.iter().filter(|reply| matches!(reply, Reply::Submitted { .. }));
            assert!(
                answered.count() as u64 + waits >= client.sent,
                "each request is answered or waits: {replies:?}"
            );
        }
    }
}

impl Exploration {
    fn new() -> Self {
        Self { seen: HashMap::new(), states: 0, ends: 0, ends_checked: 0, path: Vec::new() }
    }

    fn explore(&mut self, state: &State, depth: u32) {
        let fingerprint = state.fingerprint();
        if self.seen.get(&fingerprint).is_some_and(|explored| *explored >= depth) {
            return;
        }
        self.seen.insert(fingerprint, depth);
        self.states += 1;
        let events = state.events();
        if depth == 0 || events.is_empty() {
            self.ends += 1;
            if fingerprint.is_multiple_of(64) {
                self.ends_checked += 1;
                state.clone().check_progress();
            }
            return;
        }
        for event in events {
            let mut next = state.clone();
            self.path.push(event);
            next.apply(event);
            self.explore(&next, depth - 1);
            self.path.pop();
        }
    }
}

/// Prints the events that led to a failure.
impl Drop for Exploration {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the events that led here: {:#?}", self.path);
        }
    }
}

fn explore(name: &str, state: &State, depth: u32) -> Exploration {
    let mut exploration = Exploration::new();
    exploration.explore(state, depth);
    eprintln!(
        "{name}, depth {depth}: {} states, {} ends, of which {} were run to rest",
        exploration.states, exploration.ends, exploration.ends_checked
    );
    exploration
}

fn lock() -> LockName {
    LockName::new("printer").expect("a valid name")
}

fn acquire() -> Op {
    Op::Acquire { lock: lock(), wait: Wait::Forever, max_hold: None }
}

/// Node 1 leads; two clients have sessions with it.
fn led(time_outs: u32, crashes: u32) -> State {
    let mut state = State::new(time_outs, crashes);
    state.lab.elect(1);
    for name in ["alice", "bob"] {
        let session = state.lab.open(1, name);
        state.clients.push(Asking { session, node: 1, ops: Vec::new(), sent: 0 });
    }
    state.lab.settle();
    state
}

#[test]
fn every_start_of_a_cluster() {
    let exploration = explore("elections", &State::new(2, 1), 7);
    assert!(exploration.states > 1000, "the exploration reaches something");
    assert!(exploration.ends_checked > 0, "some of the ends are run to rest");
}

#[test]
fn every_way_in_which_two_clients_contend_for_a_lock() {
    let mut state = led(1, 1);
    for client in &mut state.clients {
        client.ops = vec![acquire()];
    }
    let exploration = explore("contention", &state, 6);
    assert!(exploration.states > 1000, "the exploration reaches something");
    assert!(exploration.ends_checked > 0, "some of the ends are run to rest");
}

#[test]
fn every_way_in_which_a_hand_over_can_go() {
    let mut state = led(1, 1);
    for position in 0..2 {
        state.clients[position].ops = vec![acquire()];
        state.request(position);
    }
    state.lab.settle();
    let token = state.lab.node(1).status().last.index.previous();
    let token = quorlock_core::ids::FencingToken::new(token.value());
    state.clients[0].ops = vec![Op::Release { lock: lock(), token, appends: Vec::new() }];
    let exploration = explore("hand-over", &state, 7);
    assert!(exploration.states > 1000, "the exploration reaches something");
    assert!(exploration.ends_checked > 0, "some of the ends are run to rest");
}
