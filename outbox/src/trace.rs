//! Takes the trace context of the current span along, as W3C headers.

use onceward_core::{Draft, Entry, InvalidMessage};

/// Names of the W3C Trace Context headers.
const PARENT: &str = "traceparent";

/// Finishes a draft, with the trace context of the current span unless the user set one.
pub(crate) fn finish(draft: Draft, max_payload: usize) -> Result<Entry, InvalidMessage> {
    let own = draft.has_header(PARENT);
    let mut entry = draft.finish(max_payload)?;
    if !own {
        add_current(&mut entry);
    }
    Ok(entry)
}

#[cfg(feature = "trace-context")]
fn add_current(entry: &mut Entry) {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    const STATE: &str = "tracestate";

    let context = tracing::Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() {
        return;
    }
    let parent = format!(
        "00-{}-{}-{:02x}",
        span.trace_id(),
        span.span_id(),
        span.trace_flags().to_u8()
    );
    let headers = &mut entry.message.headers;
    // A message whose headers are full goes without: tracing must never make an enqueue fail.
    if headers.insert(PARENT, &parent).is_ok() {
        let state = span.trace_state().header();
        if !state.is_empty() {
            headers.insert(STATE, &state).ok();
        }
    }
}

#[cfg(not(feature = "trace-context"))]
fn add_current(_: &mut Entry) {}

// Apart: Clippy knows tests by `cfg(test)` alone.
#[cfg(test)]
#[cfg(feature = "trace-context")]
mod tests {
    use onceward_core::{MAX_HEADERS, MAX_PAYLOAD, Message};
    use opentelemetry::Context;
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TracerProvider,
    };
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn traced<T>(work: impl FnOnce() -> T) -> T {
        traced_by(&Context::new(), work)
    }

    /// What arrives with a request: trace 42, with a state as in its header.
    fn of_a_caller(state: &str) -> Context {
        Context::new().with_remote_span_context(SpanContext::new(
            TraceId::from(42_u128),
            SpanId::from(7_u64),
            TraceFlags::SAMPLED,
            true,
            state.parse().unwrap(),
        ))
    }

    fn traced_by<T>(caller: &Context, work: impl FnOnce() -> T) -> T {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request");
            span.set_parent(caller.clone()).unwrap();
            span.in_scope(work)
        })
    }

    #[test]
    fn a_message_carries_the_trace_of_its_span() {
        let entry = traced(|| finish(Message::bytes("t", "x"), MAX_PAYLOAD)).unwrap();

        let parent = entry.message.headers.get("traceparent").unwrap();
        assert_eq!(parent.len(), 55, "{parent}");
        assert!(parent.starts_with("00-"), "{parent}");
    }

    #[test]
    fn a_message_carries_what_its_callers_say_of_the_trace() {
        let context = of_a_caller("vendor=x,other=y");

        let entry = traced_by(&context, || finish(Message::bytes("t", "x"), MAX_PAYLOAD)).unwrap();

        let headers = &entry.message.headers;
        assert_eq!(headers.get("tracestate"), Some("vendor=x,other=y"));
        let parent = headers.get("traceparent").unwrap();
        assert!(
            parent.starts_with("00-0000000000000000000000000000002a-"),
            "{parent}"
        );
    }

    #[test]
    fn a_trace_of_which_callers_say_nothing_has_no_state() {
        let context = of_a_caller("");

        let entry = traced_by(&context, || finish(Message::bytes("t", "x"), MAX_PAYLOAD)).unwrap();

        assert_eq!(entry.message.headers.len(), 1);
        assert!(entry.message.headers.get("traceparent").is_some());
    }

    #[test]
    fn a_message_whose_user_set_the_trace_gets_no_state_of_another() {
        let draft = Message::bytes("t", "x").header("traceparent", "mine");
        let context = of_a_caller("vendor=x");

        let entry = traced_by(&context, || finish(draft, MAX_PAYLOAD)).unwrap();

        assert_eq!(entry.message.headers.len(), 1);
        assert_eq!(entry.message.headers.get("traceparent"), Some("mine"));
    }

    #[test]
    fn a_trace_set_by_the_user_stays() {
        let draft = Message::bytes("t", "x").header("Traceparent", "mine");

        let entry = traced(|| finish(draft, MAX_PAYLOAD)).unwrap();

        assert_eq!(entry.message.headers.get("Traceparent"), Some("mine"));
        assert_eq!(entry.message.headers.get("traceparent"), None);
    }

    #[test]
    fn without_a_span_there_is_no_header() {
        let entry = finish(Message::bytes("t", "x"), MAX_PAYLOAD).unwrap();

        assert!(entry.message.headers.is_empty());
    }

    #[test]
    fn a_message_with_full_headers_goes_without_a_trace() {
        let draft = (0..MAX_HEADERS).fold(Message::bytes("t", "x"), |draft, n| {
            draft.header(format!("h{n}"), "v")
        });

        let entry = traced(|| finish(draft, MAX_PAYLOAD)).unwrap();

        assert_eq!(entry.message.headers.len(), MAX_HEADERS);
    }
}
