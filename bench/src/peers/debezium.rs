//! Debezium's engine with the outbox event router: `bench/peers/debezium`.

use std::path::Path;
use std::process::Command;

use super::peer::Place;
use crate::outcome::Outcome;

pub(super) const TABLE: &str = "
create table outbox (
  id uuid primary key default gen_random_uuid(), aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
  type varchar(255) not null, payload jsonb not null);
create publication bench for table outbox with (publish = 'insert')";

/// Large batches and a short poll; the producer as ours is: idempotent, `acks=all`, `linger.ms=5`.
const SETTINGS: &str = "
name=outbox
connector.class=io.debezium.connector.postgresql.PostgresConnector
database.hostname=127.0.0.1
database.user=postgres
database.password=none
topic.prefix=bench
plugin.name=pgoutput
publication.name=bench
publication.autocreate.mode=disabled
table.include.list=public.outbox
snapshot.mode=no_data
tombstones.on.delete=false
max.batch.size=32768
max.queue.size=262144
poll.interval.ms=10
offset.storage=org.apache.kafka.connect.storage.FileOffsetBackingStore
offset.flush.interval.ms=1000
transforms=outbox
transforms.outbox.type=io.debezium.transforms.outbox.EventRouter
producer.acks=all
producer.enable.idempotence=true
producer.linger.ms=5
producer.batch.size=262144
producer.buffer.memory=134217728
";

/// How it is started. What it keeps lies in the files of the place.
pub(super) fn command(installed: &Path, place: &Place<'_>) -> Outcome<Command> {
    let installed = installed.canonicalize()?;
    let offsets = place.files.join("offsets");
    let path = place.files.join("engine.properties");
    let Place {
        port,
        database,
        brokers,
        topic,
        ..
    } = place;
    let settings = format!(
        "{SETTINGS}database.port={port}\ndatabase.dbname={database}\nslot.name={database}\n\
         offset.storage.file.filename={}\ntransforms.outbox.route.topic.replacement={topic}\n\
         producer.bootstrap.servers={brokers}\n",
        offsets.display()
    );
    std::fs::write(&path, settings)?;
    let classes = installed.join("classes");
    let jars = installed.join("jars");
    let mut command = Command::new("java");
    command
        .args([
            "-Xms1g",
            "-Xmx2g",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
        ])
        .arg(format!("{}:{}/*", classes.display(), jars.display()))
        .arg("Relay")
        .arg(&path);
    Ok(command)
}
