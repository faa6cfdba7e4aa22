//! Values of every type on the wire, with numbers of every size, to whoever takes them: a node, a
//! lock table, a client. They decode, so somebody can send them.

use proptest::collection::vec;
use proptest::prelude::*;
use quorlock_core::client::{
    Action, Client, ClientConfig, ClientInput, ClientOutput, SessionState,
};
use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{AttemptId, CallId, NodeId, RequestId, SessionId};
use quorlock_core::lock::LockTable;
use quorlock_core::membership::Membership;
use quorlock_core::message::{Entry, Opened, Recovered, Reply, Request, Snapshot};
use quorlock_core::node::Node;
use quorlock_core::time::{Duration, Time};
use quorlock_tests::lab::{label, nonce};

use crate::locks::Table;
use crate::snapshots::snapshot_at;
use crate::solo::{Solo, bootstrap};
use crate::tools::acquire;

#[path = "../../codec/strategies.rs"]
mod strategies;

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// A leader of three with its first entry committed.
fn leader() -> Solo {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    node.persist_all();
    node.matched(2, 1);
    node
}

/// What a disk may hold: mostly entries that fit, sometimes anything.
fn recovered() -> impl Strategy<Value = Recovered> {
    let entry_list = prop_oneof![
        3 => (1..5_u64, 1..8_u64, 0..6_u64).prop_map(|(term, first, count)| {
            (first..first + count).map(|index| crate::solo::entry(term, index)).collect()
        }),
        1 => vec(strategies::entry(), 0..4),
    ];
    let snapshots = prop_oneof![
        3 => (1..5_u64, 0..8_u64).prop_map(|(term, index)| match index {
            0 => bootstrap(3).snapshot,
            _ => snapshot_at(term, index),
        }),
        1 => strategies::snapshot(),
    ];
    let membership = prop_oneof![2 => Just(None), 1 => strategies::membership().prop_map(Some)];
    (strategies::hard_state(), snapshots, membership, entry_list).prop_map(
        |(hard_state, snapshot, membership, entries): (
            _,
            Snapshot,
            Option<Membership>,
            Vec<Entry>,
        )| {
            let membership = membership.unwrap_or(snapshot.membership);
            Recovered { hard_state, snapshot: Snapshot { membership, ..snapshot }, entries }
        },
    )
}

proptest! {
    #![proptest_config(cases(400))]

    /// Any messages, to a leader and to a follower.
    #[test]
    fn a_node_takes_any_message(messages in vec((2..4_u64, strategies::message()), 1..40)) {
        for mut node in [leader(), Solo::new(3)] {
            for (from, message) in messages.clone() {
                node.receive(from, message);
                node.persist();
            }
            node.wake();
            node.persist_all();
            node.crash();
        }
    }

    /// Any requests, to a leader that commits what it is given.
    #[test]
    fn a_leader_takes_any_request(requests in vec(strategies::request(), 1..40)) {
        let mut node = leader();
        let asked = requests.len();
        let keep_alives =
            requests.iter().filter(|request| matches!(request, Request::KeepAlive { .. })).count();
        for request in requests {
            node.request(request);
            node.persist_all();
            let last = node.status().last.index.value();
            node.matched(2, last);
        }
        let now = node.status();
        prop_assert_eq!(now.applied, now.last.index);
        prop_assert!(node.replies().len() + keep_alives <= asked);
    }

    /// Any commands, whoever put them into the log.
    #[test]
    fn a_lock_table_takes_any_command(commands in vec(strategies::command(), 1..40)) {
        let mut table = Table::new(Limits::default());
        for command in commands {
            table.apply(0, Some(command));
        }
        let copy = LockTable::decode(&table.table.encode());
        prop_assert_eq!(copy.as_ref(), Ok(&table.table));
    }

    /// Any disk: a node starts from it and works, or says what is wrong.
    #[test]
    fn a_node_starts_from_any_disk_or_says_why_not(disk in recovered()) {
        let now = Time::from_micros(1);
        match Node::new(NodeId::new(1), Config::default(), disk.clone(), 1, now) {
            Err(error) => prop_assert!(error.to_string().len() > 20, "{error}"),
            Ok(node) => {
                node.check_invariants();
                let mut solo = Solo::from_disk(1, Config::default(), disk);
                for _ in 0..5 {
                    solo.wake();
                    solo.persist_all();
                }
                let (term, last) = (solo.status().term.next(), solo.status().last);
                if term.next() < quorlock_core::ids::Term::MAX {
                    let message = crate::solo::append(term.value(), last, Vec::new(), 0);
                    solo.receive(2, message);
                }
                solo.persist_all();
                solo.crash();
            }
        }
    }

    /// Any limits: they are refused, or a table with them can be encoded.
    #[test]
    fn limits_are_refused_or_work(limits in strategies::limits()) {
        if limits.check().is_ok() {
            let table = LockTable::new(limits);
            prop_assert_eq!(LockTable::decode(&table.encode()), Ok(table));
        } else {
            let voters = bootstrap(3).snapshot.membership;
            prop_assert!(Recovered::bootstrap(voters, limits).is_err());
        }
    }

    /// Any replies, also such as seem to be meant.
    #[test]
    fn a_client_takes_any_reply(
        replies in vec((strategies::reply(), any::<bool>(), 0..2000_u64), 1..60),
    ) {
        let mut host = Host::new();
        for (reply, meant, millis) in replies {
            host.now = host.now.after(Duration::from_millis(millis));
            let reply = if meant { Host::meant(reply) } else { reply };
            host.reply(reply);
            host.call();
        }
    }
}

/// A client with an open session, and the host that it runs on.
struct Host {
    client: Client,
    now: Time,
    attempt: AttemptId,
    calls: u64,
}

impl Host {
    const SESSION: u64 = 5;

    fn new() -> Self {
        let (now, config) = (Time::from_micros(1), ClientConfig::default());
        let client = Client::new(config, [NodeId::new(1)], label("a"), nonce("a"), 1, now);
        let client = client.expect("the settings by default are right");
        let mut host = Self { client, now, attempt: AttemptId::ZERO, calls: 0 };
        host.input(ClientInput::Timeout);
        let opened = Opened { session: SessionId::new(Self::SESSION), window_max: 4 };
        host.reply(Reply::Opened { nonce: nonce("a"), result: Ok(opened) });
        assert_eq!(host.client.state(), &SessionState::Safe);
        host
    }

    /// Gives the client an input, and does what it wants of connections.
    fn input(&mut self, input: ClientInput) {
        self.client.handle_input(self.now, input);
        self.client.check_invariants();
        while let Some(output) = self.client.poll_output() {
            if let ClientOutput::Connect { attempt, .. } = output {
                self.attempt = attempt;
                self.client.handle_input(self.now, ClientInput::Connected { attempt });
                self.client.check_invariants();
            }
        }
    }

    fn reply(&mut self, reply: Reply) {
        let attempt = self.attempt;
        self.input(ClientInput::Reply { attempt, reply });
    }

    fn call(&mut self) {
        self.calls += 1;
        let name = format!("l{}", self.calls % 3);
        let action = Action::Op(acquire(&name));
        self.input(ClientInput::Call { call: CallId::new(self.calls), action });
    }

    /// The reply as if it were about this session.
    fn meant(reply: Reply) -> Reply {
        let ours = SessionId::new(Self::SESSION);
        match reply {
            Reply::Opened { result, .. } => Reply::Opened { nonce: nonce("a"), result },
            Reply::KeptAlive { index, result, id, .. } => {
                let id = RequestId::new(id.value() % 4);
                Reply::KeptAlive { id, session: ours, index, result }
            }
            Reply::Submitted { sequence, index, outcome, .. } => {
                Reply::Submitted { session: ours, sequence, index, outcome }
            }
            Reply::Lost { loss, .. } => Reply::Lost { session: ours, loss },
            // It would end the session, and with it all that is to be seen here.
            Reply::SessionEnded { .. } | Reply::Read { .. } | Reply::Unavailable { .. } => reply,
        }
    }
}
