//! What a client believes: when it is told of a loss, and what it makes of late news.

use quorlock_core::client::{
    Action, CallError, Client, ClientConfig, ClientInput, ClientOutput, Completed, Ending,
    SessionState,
};
use quorlock_core::ids::{
    AttemptId, CallId, FencingToken, LogIndex, NodeId, RequestId, Sequence, SessionId,
};
use quorlock_core::message::{
    Done, EndCause, Loss, Opened, Outcome, Rejection, Reply, Request, SessionNews,
};
use quorlock_core::time::{Duration, Time};
use quorlock_tests::lab::{ClientNews, Lab, label, nonce};

use crate::tools::{acquire, append_to, granted, hold, holder, lab, lock, release};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> ClientConfig {
    ClientConfig::for_lease(SECOND * 4)
}

/// A cluster with these clients, whose sessions are open.
fn with_clients(names: &[&str]) -> Lab {
    let mut lab = lab(3);
    lab.elect(1);
    for name in names {
        lab.add_client(name, config(), &[1, 2, 3]);
    }
    lab.run(SECOND);
    for name in names {
        assert_eq!(lab.client(name).state(), &SessionState::Safe);
    }
    lab
}

/// Has a client acquire a lock that is free.
fn client_holds(lab: &mut Lab, name: &str, of: &str) -> FencingToken {
    let call = lab.call(name, acquire(of).into());
    lab.run(Duration::from_millis(200));
    match lab.result(name, call) {
        Some(Ok(Completed::Done(Done::Granted { token, .. }))) => *token,
        other => panic!("{of} was not granted to {name}: {other:?}"),
    }
}

/// Hazard L1 (Kleppmann; Curator-206; Jepsen's lock tests with pauses): a client is paused past its
/// lease, and goes on as if it held the lock.
#[test]
fn a_client_that_was_paused_hears_of_the_loss_before_anything_else() {
    let mut lab = with_clients(&["paused", "next"]);
    let old = client_holds(&mut lab, "paused", "l");
    let session = lab.client("paused").session().expect("it is open");
    let waiting = lab.call("next", acquire("l").into());
    lab.run(SECOND);
    lab.pause_client("paused", true);
    lab.run(SECOND * 12);
    let Some(Ok(Completed::Done(Done::Granted { token: new, .. }))) = lab.result("next", waiting)
    else {
        panic!("the next one in the queue has the lock: {:?}", lab.result("next", waiting));
    };
    assert!(*new > old);
    // It wakes up in the middle of its work: the first thing that it does is a write.
    lab.pause_client("paused", false);
    lab.client_news("paused");
    let write = lab.call("paused", append_to("l", old, "f", "late\n").into());
    let news = lab.client_news("paused");
    let ended = |news: &ClientNews| matches!(news, ClientNews::State(SessionState::Ended(_)));
    let finished = |news: &ClientNews| matches!(news, ClientNews::Finished(..));
    let sent = |news: &ClientNews| matches!(news, ClientNews::Sent(..));
    let told = news.iter().position(ended).expect("it is told");
    assert!(news.iter().position(finished) > Some(told), "before the call is over: {news:?}");
    assert!(!news.iter().any(sent), "and nothing is sent any more");
    let result = lab.result("paused", write);
    assert!(matches!(result, Some(Err(CallError::SessionEnded(_)))), "{result:?}");
    assert_eq!(lab.client("paused").held().count(), 0);
    // Even if it were sent, by somebody who looked at no clock.
    lab.submit(1, session, 2, append_to("l", old, "f", "late\n"));
    lab.settle();
    assert_eq!(lab.lab_node(1).file("f"), None);
}

/// Hazard L7: the clock jumps forward, as after a machine slept. The client fails safe.
#[test]
fn a_jump_of_the_clock_ends_the_lease_before_the_next_call() {
    let mut lab = with_clients(&["a"]);
    client_holds(&mut lab, "a", "l");
    lab.client_news("a");
    lab.pass(SECOND * 288);
    let call = lab.call("a", acquire("m").into());
    let news = lab.client_news("a");
    let states: Vec<&SessionState> = news
        .iter()
        .filter_map(|news| if let ClientNews::State(state) = news { Some(state) } else { None })
        .collect();
    assert_eq!(states.last(), Some(&&SessionState::Ended(Ending::LeaseRanOut)), "{news:?}");
    assert_eq!(lab.result("a", call), Some(&Err(CallError::SessionEnded(Ending::LeaseRanOut))));
}

/// Hazard L8: clocks that differ in rate by as much as the settings allow. By its own clock the
/// client's lease is over before the cluster's can be.
#[test]
fn the_margin_of_a_lease_covers_the_drift() {
    for seconds in [2, 10, 3600] {
        let config = ClientConfig::for_lease(SECOND * seconds);
        // A client whose clock is slow by one part in a hundred, nodes whose clocks are as fast.
        let client = config.own_lease().as_micros() * 100 / 99;
        let cluster = config.lease.as_micros() * 100 / 101;
        assert!(client < cluster, "{client} microseconds of {cluster}");
    }
}

/// Hazard L15 (etcd #17529, #15271): the push that told of a grant was lost, and the client waited
/// for ever.
#[test]
fn a_grant_whose_push_is_lost_is_learned_from_a_keep_alive() {
    let mut lab = with_clients(&["a"]);
    let holder = lab.open(1, "holder");
    let token = hold(&mut lab, 1, holder, "l");
    let call = lab.call("a", acquire("l").into());
    lab.run(Duration::from_millis(100));
    lab.hold_client("a", true);
    lab.perform(1, holder, release("l", token));
    assert!(lab.drop_to_client("a"), "the push was on its way");
    while lab.drop_to_client("a") {}
    assert_eq!(lab.result("a", call), None);
    lab.hold_client("a", false);
    lab.run(SECOND * 2);
    let result = lab.result("a", call);
    assert!(matches!(result, Some(Ok(Completed::Done(Done::Granted { .. })))), "{result:?}");
}

/// Hazard L15, for losses: a lock was broken, and the push got lost.
#[test]
fn a_loss_whose_push_is_lost_is_learned_from_a_keep_alive() {
    let mut lab = with_clients(&["a"]);
    let token = client_holds(&mut lab, "a", "l");
    let admin = lab.open(1, "admin");
    lab.hold_client("a", true);
    let reason = crate::tools::text("stuck");
    let op = quorlock_core::message::Op::Break { lock: lock("l"), token, reason };
    lab.perform(1, admin, op);
    while lab.drop_to_client("a") {}
    assert_eq!(lab.client("a").held().count(), 1, "it cannot know");
    lab.hold_client("a", false);
    lab.client_news("a");
    lab.run(SECOND * 2);
    let losses = lab
        .client_news("a")
        .into_iter()
        .filter(|news| matches!(news, ClientNews::Lost(loss) if loss.token == token));
    assert_eq!((losses.count(), lab.client("a").held().count()), (1, 0), "told once");
}

/// Hazard L26 (Curator-678): a client took a lock for released when it had only asked for it.
#[test]
fn a_release_counts_when_it_is_answered() {
    let mut lab = with_clients(&["a"]);
    let token = client_holds(&mut lab, "a", "l");
    lab.hold_client("a", true);
    let call = lab.call("a", release("l", token).into());
    // The request is lost with its connection; then the answer, with the next one.
    while lab.drop_to_node("a") {}
    lab.break_client("a");
    assert_eq!((lab.result("a", call), lab.client("a").held().count()), (None, 1));
    lab.hold_client("a", false);
    lab.run(Duration::from_millis(500));
    assert_eq!(lab.result("a", call), Some(&RELEASED));
    assert_eq!(lab.client("a").held().count(), 0);

    let token = client_holds(&mut lab, "a", "l");
    lab.hold_client("a", true);
    let call = lab.call("a", release("l", token).into());
    while lab.carry_to_node("a") {}
    lab.settle();
    assert_eq!(holder(&lab, 1, "l"), None, "it is done");
    while lab.drop_to_client("a") {}
    lab.break_client("a");
    assert_eq!((lab.result("a", call), lab.client("a").held().count()), (None, 1));
    lab.hold_client("a", false);
    lab.run(Duration::from_millis(500));
    assert_eq!(lab.result("a", call), Some(&RELEASED));
}

/// What a release that was answered comes to.
const RELEASED: Result<Completed, CallError> =
    Ok(Completed::Done(Done::Released { offsets: Vec::new() }));

/// A client whose cluster is the test.
struct Alone {
    client: Client,
    now: Time,
    attempt: AttemptId,
    session: SessionId,
    outputs: Vec<ClientOutput>,
}

impl Alone {
    /// One with an open session and a connection.
    fn new() -> Self {
        let now = Time::from_micros(1);
        let (nodes, label) = ([NodeId::new(1), NodeId::new(2)], label("a"));
        let client = Client::new(config(), nodes, label, nonce("a"), 1, now);
        let client = client.expect("the settings of a test are right");
        let (attempt, session) = (AttemptId::ZERO, SessionId::new(5));
        let mut alone = Self { client, now, attempt, session, outputs: Vec::new() };
        alone.take();
        alone.connect();
        let opened = Opened { session, window_max: 10 };
        alone.reply(Reply::Opened { nonce: nonce("a"), result: Ok(opened) });
        assert_eq!(alone.client.state(), &SessionState::Safe);
        alone
    }

    fn take(&mut self) {
        while let Some(output) = self.client.poll_output() {
            if let ClientOutput::Connect { attempt, .. } = output {
                self.attempt = attempt;
            }
            self.outputs.push(output);
        }
        self.client.check_invariants();
    }

    fn input(&mut self, input: ClientInput) {
        self.client.handle_input(self.now, input);
        self.take();
    }

    fn connect(&mut self) {
        let attempt = self.attempt;
        self.input(ClientInput::Connected { attempt });
    }

    /// The connection breaks, and there is another one.
    fn reconnect(&mut self) {
        let attempt = self.attempt;
        self.input(ClientInput::Disconnected { attempt });
        while self.attempt == attempt {
            let (at, _) = self.client.poll_timeout().expect("it tries again");
            self.now = at;
            self.input(ClientInput::Timeout);
        }
        self.connect();
    }

    fn reply(&mut self, reply: Reply) {
        let attempt = self.attempt;
        self.input(ClientInput::Reply { attempt, reply });
    }

    fn outcome(&mut self, sequence: u64, index: u64, outcome: Outcome) {
        let (session, sequence, index) =
            (self.session, Sequence::new(sequence), LogIndex::new(index));
        self.reply(Reply::Submitted { session, sequence, index, outcome });
    }

    fn granted(&mut self, sequence: u64, token: u64) {
        let token = FencingToken::new(token);
        self.outcome(sequence, token.value(), Ok(Done::Granted { token, predecessor: None }));
    }

    fn lost(&mut self, token: u64, index: u64) {
        self.reply(Reply::Lost { session: self.session, loss: loss(token, index) });
    }

    fn call(&mut self, call: u64, action: Action) {
        self.input(ClientInput::Call { call: CallId::new(call), action });
    }

    fn held(&self) -> Vec<u64> {
        self.client.held().map(|held| held.token.value()).collect()
    }

    /// The number of the last keep-alive that was sent.
    fn keep_alive(&self) -> RequestId {
        let ids = self.outputs.iter().filter_map(|output| {
            let ClientOutput::Send { request, .. } = output else { return None };
            if let Request::KeepAlive { id, .. } = request { Some(*id) } else { None }
        });
        ids.last().expect("a keep-alive comes first on a connection")
    }

    fn losses(&self) -> usize {
        self.outputs.iter().filter(|output| matches!(output, ClientOutput::Lost(_))).count()
    }
}

fn loss(token: u64, index: u64) -> Loss {
    let (token, index) = (FencingToken::new(token), LogIndex::new(index));
    Loss { lock: lock("l"), token, index, cause: EndCause::HoldTimedOut }
}

/// Hazard L16 (Curator-604, -498): news that was older than what the client knew made it believe
/// that it held, or had lost, a lock.
#[test]
fn older_news_of_a_lock_change_nothing() {
    let mut alone = Alone::new();
    alone.call(1, acquire("l").into());
    alone.granted(1, 10);
    assert_eq!(alone.held(), [10]);
    alone.lost(10, 12);
    assert_eq!((alone.held(), alone.losses()), (vec![], 1));
    alone.call(2, acquire("l").into());
    alone.granted(2, 20);
    assert_eq!(alone.held(), [20]);
    for _ in 0..3 {
        // The loss of the first hold, again, and the grant of it.
        alone.lost(10, 12);
        alone.granted(1, 10);
    }
    assert_eq!((alone.held(), alone.losses()), (vec![20], 1));
    // All of it once more in the news of a keep-alive, on a new connection.
    alone.reconnect();
    let (id, session, index) = (alone.keep_alive(), alone.session, LogIndex::new(30));
    let news = SessionNews { outcomes: Vec::new(), losses: vec![loss(10, 12)] };
    alone.reply(Reply::KeptAlive { id, session, index, result: Ok(news) });
    assert_eq!((alone.held(), alone.losses()), (vec![20], 1));
    alone.lost(20, 31);
    assert_eq!((alone.held(), alone.losses()), (vec![], 2));
}

/// Hazard L16, the other order: the loss overtakes the grant.
#[test]
fn a_loss_that_overtakes_its_grant_leaves_nothing_held() {
    let mut alone = Alone::new();
    alone.call(1, acquire("l").into());
    alone.lost(10, 12);
    alone.granted(1, 10);
    assert_eq!(alone.held(), Vec::<u64>::new(), "it was lost before it was known");
    let finished =
        alone.outputs.iter().any(|output| matches!(output, ClientOutput::Finished { .. }));
    assert!(finished, "the call is over all the same");
}

/// Hazard L21, at the client: what is said of another session is not about this one.
#[test]
fn news_of_another_session_are_not_believed() {
    let mut alone = Alone::new();
    alone.call(1, acquire("l").into());
    alone.granted(1, 10);
    let (session, index) = (SessionId::new(4), LogIndex::new(12));
    let cause = quorlock_core::message::SessionEnd::Expired;
    alone.reply(Reply::SessionEnded { session, index, cause });
    alone.reply(Reply::Lost { session, loss: loss(10, 12) });
    let outcome = Err(Rejection::SessionUnknown);
    alone.reply(Reply::Submitted { session, sequence: Sequence::new(2), index, outcome });
    assert_eq!((alone.held(), alone.client.state()), (vec![10], &SessionState::Safe));
    assert_eq!(alone.client.ignored_replies(), 3);
}

/// Hazard 63 and L20, at the client: a call whose outcome nobody can know any more is `Unknown`, and
/// is never made again under another number.
#[test]
fn a_call_whose_session_ends_is_unknown_unless_it_was_never_sent() {
    let mut lab = with_clients(&["a"]);
    let token = client_holds(&mut lab, "a", "l");
    lab.hold_client("a", true);
    let sent = lab.call("a", append_to("l", token, "f", "line\n").into());
    while lab.carry_to_node("a") {}
    lab.settle();
    lab.run(SECOND * 5);
    assert_eq!(lab.result("a", sent), Some(&Err(CallError::Unknown)));
    let never = lab.call("a", append_to("l", token, "f", "line\n").into());
    assert!(matches!(lab.result("a", never), Some(Err(CallError::SessionEnded(_)))));
    lab.hold_client("a", false);
    lab.run(SECOND * 12);
    let other = lab.open(1, "other");
    granted(lab.perform(1, other, acquire("l")));
    assert_eq!(lab.lab_node(1).file("f"), Some(&b"line\n"[..]), "once, as it happens");
}
