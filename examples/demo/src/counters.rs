//! Reads single numbers out of the metrics that relays and consumers expose. For show; the ledger asks nobody.

use std::net::SocketAddr;

use crate::http::Connection;

/// What a process exposes now; none if it does not answer.
pub(crate) async fn scrape(address: SocketAddr) -> Option<String> {
    let mut connection = Connection::open(address).await.ok()?;
    let answer = connection.get("/metrics").await.ok()?;
    (answer.status == 200).then_some(answer.body)
}

/// The sum of all samples of a metric that have this label, in Prometheus's text form.
pub(crate) fn sum(text: &str, name: &str, label: &str) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_ours = labels.is_empty() || labels.starts_with('{');
        (is_ours && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE handled_total counter\n\
        handled_total{consumer=\"billing\",outcome=\"handled\"} 40\n\
        handled_total{consumer=\"billing\",outcome=\"duplicate\"} 2\n\
        handled_total_other{outcome=\"duplicate\"} 7\n\
        up 1\n";

    #[test]
    fn samples_are_chosen_by_name_and_label() {
        assert_eq!(sum(TEXT, "handled_total", "outcome=\"duplicate\""), 2.0);
        assert_eq!(sum(TEXT, "handled_total", ""), 42.0);
        assert_eq!(sum(TEXT, "up", ""), 1.0);
        assert_eq!(sum(TEXT, "down", ""), 0.0);
    }
}
