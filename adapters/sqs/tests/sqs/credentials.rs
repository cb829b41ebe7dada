use std::time::Duration;

use onceward_core::{Acker as _, ErrorKind, Outcome, SubscribeErrorKind, Subscriber as _};
use onceward_testkit::sqs::Act;

use crate::{PATIENCE, Stage, offer, read};

#[tokio::test]
async fn credentials_that_run_out_end_the_session_and_new_ones_go_on() {
    let stage = Stage::fifo().await;
    let messages: Vec<_> = (0..3)
        .map(|n| stage.message(&format!("k{n}"), "x"))
        .collect();
    let mut member = stage.member(Duration::from_secs(30)).await;
    stage
        .gate
        .script(|_| Act::refuse(403, "com.amazon.coral.service#ExpiredTokenException"));

    let receipts = offer(&mut stage.session().await, &messages).await;
    let refused = async {
        loop {
            if let Err(error) = member.next(1).await {
                return error.kind;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    stage.gate.script(|_| Act::Pass);
    let again = offer(&mut stage.session().await, &messages).await;

    assert_eq!(
        receipts.session_over().map(|e| e.kind),
        Some(ErrorKind::Unauthorized)
    );
    assert!(
        receipts
            .outcomes()
            .iter()
            .all(|o| matches!(o, Outcome::Unconfirmed))
    );
    assert_eq!(refused, SubscribeErrorKind::Unauthorized);
    assert!(again.all_confirmed(), "{again:?}");
    let mut came = 0;
    let reading = async {
        while came < 3 {
            // It may have one more refusal to tell.
            came += member.next(3).await.map_or(0, |arrivals| arrivals.len());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
}

#[tokio::test]
async fn acks_and_extensions_that_credentials_refuse_are_told_as_such_and_hold_once_there_are_new_ones()
 {
    let stage = Stage::fifo().await;
    let messages: Vec<_> = (0..3)
        .map(|n| stage.message(&format!("k{n}"), "x"))
        .collect();
    offer(&mut stage.session().await, &messages).await;
    let mut member = stage.member(Duration::from_secs(30)).await;
    let deliveries = read(&mut member, 3).await;
    let tokens: Vec<_> = deliveries.into_iter().map(|one| one.token).collect();
    let acker = member.acker();
    stage
        .gate
        .script(|_| Act::refuse(403, "com.amazon.coral.service#ExpiredTokenException"));

    let refused = [
        acker.extend(tokens.clone()).await.unwrap_err(),
        acker.ack(tokens.clone()).await.unwrap_err(),
    ];
    stage.gate.script(|_| Act::Pass);
    let extended = acker.extend(tokens.clone()).await.unwrap();
    acker.ack(tokens).await.unwrap();

    for error in refused {
        assert_eq!(error.kind, SubscribeErrorKind::Unauthorized);
    }
    assert!(extended.iter().all(Option::is_some), "{extended:?}");
    assert_eq!(member.backlog().await.unwrap()[0].count, 0);
}

#[tokio::test]
async fn sqs_is_reached_if_it_answers_and_knows_us_whatever_it_allows() {
    let stage = Stage::fifo().await;
    let refuse = |code: &'static str| stage.gate.script(move |_| Act::refuse(403, code));

    let plain = stage.session().await.reach().await;
    refuse("com.amazon.coral.service#AccessDeniedException");
    let not_allowed = stage.session().await.reach().await;
    refuse("com.amazon.coral.service#InvalidClientTokenId");
    let unknown = stage.session().await.reach().await;

    assert!(plain.is_ok(), "{plain:?}");
    assert!(not_allowed.is_ok(), "{not_allowed:?}");
    let unknown = unknown.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::Unauthorized);
    assert!(
        unknown
            .what
            .starts_with("SQS refuses: InvalidClientTokenId (403)")
            && unknown.source.is_none(),
        "{unknown:?}"
    );
}
