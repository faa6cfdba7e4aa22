//! Who is let in, and what is said to the others.

use std::time::{Duration, SystemTime};

use quorlock::client::{Client, ClientOptions, ConnectError, DialError};
use quorlock::tls::authority::{Authority, Issued};
use quorlock::tls::{ClusterId, Identity, Role, Validity};

use crate::cluster::{Cluster, credentials_of};
use crate::{endpoints, soon};

fn ada() -> Role {
    Role::Client("ada".into())
}

/// Why a client with this certificate gets no further.
async fn refusal(cluster: &Cluster, authority: &Authority, issued: &Issued) -> DialError {
    let credentials = credentials_of(cluster.folder.path(), authority, issued);
    let options = ClientOptions::new(endpoints(cluster), credentials);
    let error = soon(Client::connect(options)).await.expect_err("the certificate is not good");
    let ConnectError::Unreachable { mut failures, timeout: None } = error else {
        panic!("{error}")
    };
    failures.swap_remove(0).1
}

fn valid(from: i64, until: i64) -> Validity {
    let moment = |hours: i64| {
        let duration = Duration::from_hours(hours.unsigned_abs());
        if hours < 0 { SystemTime::now() - duration } else { SystemTime::now() + duration }
    };
    Validity { from: moment(from), until: moment(until) }
}

#[tokio::test]
async fn every_bad_certificate_has_its_own_answer() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let authority = &cluster.authority;

    let identity = Identity { cluster: authority.cluster().clone(), role: ada() };
    let expired = authority.issue_identity(&identity, valid(-3, -1)).expect("a good name");
    let error = refusal(&cluster, authority, &expired).await;
    let DialError::CertificateRefused { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("expired"), "{error}");

    let other_cluster = ClusterId::random().expect("there is randomness");
    let identity = Identity { cluster: other_cluster.clone(), role: ada() };
    let issued = authority.issue_identity(&identity, valid(-1, 1)).expect("a good name");
    let error = refusal(&cluster, authority, &issued).await;
    let theirs = authority.cluster().clone();
    assert_eq!(error, DialError::OtherCluster { ours: other_cluster, theirs });

    let (other, _) = Authority::create(Duration::from_hours(1)).expect("an authority");
    let issued = other.issue(ada(), Duration::from_hours(1)).expect("a good name");
    let error = refusal(&cluster, &other, &issued).await;
    assert!(matches!(error, DialError::BadCertificate { .. }), "{error:?}");
    assert!(error.to_string().contains("another authority"), "{error}");

    // It believes the node, and the node does not believe it.
    let forger = Authority::create_for(authority.cluster().clone(), Duration::from_hours(1));
    let (forger, _) = forger.expect("an authority");
    let issued = forger.issue(ada(), Duration::from_hours(1)).expect("a good name");
    let error = refusal(&cluster, authority, &issued).await;
    let DialError::CertificateRefused { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("another authority"), "{error}");
}
