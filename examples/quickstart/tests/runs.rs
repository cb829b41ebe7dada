//! The quickstart does what it says, also a second time on the same database.

use std::process::Command;
use std::time::Duration;

use onceward_testkit::postgres::Postgres;
use onceward_testkit::process::Child;

#[tokio::test]
async fn the_quickstart_bills_each_order_once() {
    let database = Postgres::shared().await.database().await;

    for _ in 0..2 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
        command.env("DATABASE_URL", database.url());
        let quickstart = Child::spawn("quickstart", &command);
        let status = quickstart.wait(Duration::from_secs(60)).await;

        assert!(status.success(), "{}", quickstart.stderr());
        let last = quickstart.stdout().lines().last().map(str::to_owned);
        let expected = "3 deliveries of 2 orders; invoices of the first one: 1";
        assert_eq!(last.as_deref(), Some(expected));
    }
}
