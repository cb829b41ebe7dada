use super::*;

#[test]
fn refusals_of_a_call_are_told_apart_by_whose_fault_they_are() {
    for (code, said, status, kind) in [
        (
            "com.amazonaws.sqs#QueueDoesNotExist",
            "",
            400,
            ErrorKind::UnknownTopic,
        ),
        (
            "AWS.SimpleQueueService.NonExistentQueue",
            "",
            400,
            ErrorKind::UnknownTopic,
        ),
        ("RequestThrottled", "", 400, ErrorKind::Throttled),
        (
            "ThrottlingException",
            "Rate exceeded",
            400,
            ErrorKind::Throttled,
        ),
        (
            "com.amazon.coral.service#ExpiredTokenException",
            "",
            403,
            ErrorKind::Unauthorized,
        ),
        ("InvalidClientTokenId", "", 403, ErrorKind::Unauthorized),
        ("AccessDeniedException", "", 400, ErrorKind::Unauthorized),
        ("KmsDisabled", "", 400, ErrorKind::Unauthorized),
        ("Something", "", 403, ErrorKind::Unauthorized),
        (
            "AWS.SimpleQueueService.BatchRequestTooLong",
            "",
            400,
            ErrorKind::TooLarge,
        ),
        (
            "InvalidAttributeValue",
            "MessageTooLong",
            400,
            ErrorKind::TooLarge,
        ),
        (
            "InvalidAttributeValue",
            "the url",
            400,
            ErrorKind::Unavailable,
        ),
        ("InternalFailure", "", 500, ErrorKind::Unavailable),
        ("SomethingNew", "", 400, ErrorKind::Unavailable),
    ] {
        assert_eq!(
            kind_of_call(bare(code), said, status),
            kind,
            "{code} {said}"
        );
    }
}

fn refused(code: &str, said: &str, sender_fault: bool) -> BatchResultErrorEntry {
    BatchResultErrorEntry::builder()
        .id("0")
        .code(code)
        .message(said)
        .sender_fault(sender_fault)
        .build()
        .unwrap()
}

#[test]
fn refusals_of_an_entry_blame_it_only_where_sqs_does() {
    for (code, said, sender, kind) in [
        ("InvalidMessageContents", "", true, ErrorKind::Rejected),
        (
            "InvalidParameterValue",
            "Message must be shorter than 9 bytes",
            true,
            ErrorKind::TooLarge,
        ),
        (
            "InvalidParameterValue",
            "Number of message attributes [11] exceeds the allowed maximum [10].",
            true,
            ErrorKind::Rejected,
        ),
        (
            "InvalidParameterValue",
            "odd",
            false,
            ErrorKind::Unavailable,
        ),
        ("InternalError", "", false, ErrorKind::Unavailable),
        ("ThrottlingException", "", false, ErrorKind::Throttled),
        ("KmsAccessDenied", "", true, ErrorKind::Unauthorized),
        ("SomethingNew", "", true, ErrorKind::Unavailable),
    ] {
        assert_eq!(
            entry(&refused(code, said, sender)).kind,
            kind,
            "{code} {said}"
        );
    }
}

#[test]
fn a_refusal_for_its_size_tells_how_large_the_message_is_and_may_be() {
    let entry_ = Entry {
        body: "YWJj".to_owned(),
        attributes: vec![("onceward-encoding", "base64".to_owned())],
    };
    let error = entry(&refused("InvalidParameterValue", "MessageTooLong", true));

    let told = with_size(error, &entry_, Some(20));

    assert_eq!(told.kind, ErrorKind::TooLarge);
    assert_eq!(
        told.what,
        "SQS refuses the message: InvalidParameterValue: MessageTooLong: it has 33 bytes on the wire (payload in base64), and the queue takes 20"
    );
}

#[test]
fn a_refusal_is_one_sentence() {
    assert_eq!(
        refusal_text("QueueDoesNotExist", 400, "no such queue"),
        "SQS refuses: QueueDoesNotExist (400): no such queue"
    );
    assert_eq!(
        refusal_text("AccessDenied", 403, ""),
        "SQS refuses: AccessDenied (403)"
    );
}

#[test]
fn a_missing_region_is_told_from_a_network_that_does_not_answer() {
    let missing = std::io::Error::other("Invalid Configuration: Missing Region");
    let refused = std::io::Error::other("Connection refused");

    assert!(lacks_region(&missing));
    assert!(!lacks_region(&refused));
}

#[test]
fn a_delivery_that_is_no_longer_ours_is_told_apart_from_an_outage() {
    assert!(has_run_out(&refused("ReceiptHandleIsInvalid", "", true)));
    assert!(has_run_out(&refused(
        "AWS.SimpleQueueService.MessageNotInflight",
        "",
        true
    )));
    assert!(has_run_out(&refused(
        "InvalidParameterValue",
        "The receipt handle has expired",
        true
    )));
    assert!(!has_run_out(&refused("InternalError", "", false)));
}
