//! What makes no sense is refused.

use onceward_consumer::BatchSettings;

use super::{of, write_all};
use crate::common::Stage;

#[tokio::test]
async fn settings_of_batches_that_make_no_sense_are_refused() {
    let stage = Stage::new().await;
    let settings = of(BatchSettings {
        messages: 0,
        ..BatchSettings::default()
    });

    let built = stage.builder().on_batch("*", write_all).with(settings);

    assert!(built.build().unwrap_err().to_string().contains("batch"));
}
