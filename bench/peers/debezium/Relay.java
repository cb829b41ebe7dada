import io.debezium.embedded.Connect;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.RecordChangeEvent;
import io.debezium.engine.format.ChangeEventFormat;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.connect.source.SourceRecord;

/**
 * Debezium's engine with the outbox event router, publishing to Kafka: what `make bench-peers` measures.
 *
 * <p>The one argument names a file of properties. Those that begin with "producer." are the producer's, all others the engine's.
 * A batch is acknowledged once all of it is confirmed by the broker, and a record that is refused ends the engine.
 */
public final class Relay {
  private static final String OF_PRODUCER = "producer.";

  private final KafkaProducer<String, String> producer;
  private final AtomicReference<Exception> refused = new AtomicReference<>();

  private Relay(Properties settings) {
    producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
  }

  private void publish(
      List<RecordChangeEvent<SourceRecord>> batch,
      DebeziumEngine.RecordCommitter<RecordChangeEvent<SourceRecord>> committer)
      throws InterruptedException {
    for (RecordChangeEvent<SourceRecord> event : batch) {
      send(event.record());
    }
    producer.flush();
    if (refused.get() != null) {
      throw new IllegalStateException("the broker refused a record", refused.get());
    }
    for (RecordChangeEvent<SourceRecord> event : batch) {
      committer.markProcessed(event);
    }
    committer.markBatchFinished();
  }

  private void send(SourceRecord record) {
    // Heartbeats and the like have values of other kinds.
    if (!(record.value() instanceof String value)) {
      return;
    }
    ProducerRecord<String, String> outgoing =
        new ProducerRecord<>(record.topic(), (String) record.key(), value);
    record
        .headers()
        .forEach(
            header ->
                outgoing
                    .headers()
                    .add(
                        header.key(),
                        String.valueOf(header.value()).getBytes(StandardCharsets.UTF_8)));
    producer.send(
        outgoing,
        (metadata, error) -> {
          if (error != null) {
            refused.set(error);
          }
        });
  }

  public static void main(String[] arguments) throws Exception {
    Properties ofEngine = new Properties();
    Properties ofProducer = new Properties();
    Properties all = new Properties();
    try (var file = Files.newBufferedReader(Path.of(arguments[0]))) {
      all.load(file);
    }
    for (String name : all.stringPropertyNames()) {
      String value = all.getProperty(name);
      if (name.startsWith(OF_PRODUCER)) {
        ofProducer.put(name.substring(OF_PRODUCER.length()), value);
      } else {
        ofEngine.put(name, value);
      }
    }
    Relay relay = new Relay(ofProducer);
    var engine =
        DebeziumEngine.create(ChangeEventFormat.of(Connect.class))
            .using(ofEngine)
            .notifying(relay::publish)
            .using(
                (success, message, error) -> {
                  System.err.println("the engine ended: " + message);
                  if (error != null) {
                    error.printStackTrace();
                  }
                })
            .build();
    Thread running = new Thread(engine, "engine");
    running.start();
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  try {
                    engine.close();
                    relay.producer.close();
                  } catch (java.io.IOException error) {
                    error.printStackTrace();
                  }
                }));
    running.join();
  }
}
