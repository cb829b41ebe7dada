//! What SQS answers, as kinds of errors. Pure. What is not known is `Unavailable`.

use std::error::Error;
use std::iter;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;
use onceward_core::{BoxError, ErrorKind, PublishError, SubscribeError, SubscribeErrorKind};

use crate::headers::Entry;

/// Why a call failed as a whole.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: ErrorKind,
    pub(crate) what: String,
    /// Whether SQS may have done what it was asked all the same.
    pub(crate) unknown: bool,
    /// Whether nobody with these credentials gets anything done: they are to be looked up anew.
    pub(crate) credentials: bool,
    /// Whether nothing was heard from SQS, as far as one can tell.
    pub(crate) unanswered: bool,
    /// None where `what` says all that there is: what SQS itself answered.
    source: Option<BoxError>,
}

impl Trouble {
    /// The same trouble in better words, which say all.
    pub(crate) fn saying(self, what: String) -> Self {
        Self {
            what,
            source: None,
            ..self
        }
    }

    /// As an error of one message among others; the source goes to the first that asks.
    pub(crate) fn to_publish_error(&self) -> PublishError {
        PublishError::new(self.kind, self.what.clone())
    }

    pub(crate) fn into_publish_error(self) -> PublishError {
        PublishError {
            kind: self.kind,
            what: self.what,
            source: self.source,
        }
    }

    pub(crate) fn into_subscribe_error(self) -> SubscribeError {
        let kind = match self.kind {
            ErrorKind::Unauthorized => SubscribeErrorKind::Unauthorized,
            ErrorKind::Unavailable
            | ErrorKind::Throttled
            | ErrorKind::UnknownTopic
            | ErrorKind::TooLarge
            | ErrorKind::Rejected => SubscribeErrorKind::Unavailable,
        };
        SubscribeError {
            kind,
            what: self.what,
            source: self.source,
        }
    }
}

/// Why a call failed.
pub(crate) fn trouble<E>(error: SdkError<E, HttpResponse>) -> Trouble
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if has_no_credentials(&error) {
        return Trouble {
            kind: ErrorKind::Unauthorized,
            what: "there are no credentials for SQS, or they cannot be had now".to_owned(),
            unknown: false,
            credentials: true,
            unanswered: true,
            source: Some(error.into()),
        };
    }
    let SdkError::ServiceError(answered) = &error else {
        // A call that could not be built was never sent; of any other the answer is missing.
        let built = !matches!(error, SdkError::ConstructionFailure(_));
        let what = if lacks_region(&error) {
            "no region is set, neither in the configuration nor in AWS_REGION or the profile"
        } else if built {
            "SQS does not answer"
        } else {
            "the call to SQS cannot be made"
        };
        return Trouble {
            kind: ErrorKind::Unavailable,
            what: what.to_owned(),
            unknown: built,
            credentials: false,
            unanswered: true,
            source: Some(error.into()),
        };
    };
    let status = answered.raw().status().as_u16();
    let refusal = answered.err().meta();
    let code = bare(refusal.code().unwrap_or_default()).to_owned();
    let said = refusal.message().unwrap_or_default();
    let kind = kind_of_call(&code, said, status);
    Trouble {
        kind,
        what: refusal_text(&code, status, said),
        unknown: kind == ErrorKind::Unavailable && status >= 500,
        credentials: is_about_credentials(&code),
        // An answer without a code is that of something else than SQS.
        unanswered: code.is_empty() || (kind == ErrorKind::Unavailable && status >= 500),
        source: None,
    }
}

fn refusal_text(code: &str, status: u16, said: &str) -> String {
    let code = if code.is_empty() {
        "no code is given"
    } else {
        code
    };
    let said = said.trim();
    if said.is_empty() {
        format!("SQS refuses: {code} ({status})")
    } else {
        format!("SQS refuses: {code} ({status}): {said}")
    }
}

/// Whether the client does not know where to send a call to. The SDK says so in words only.
fn lacks_region(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.to_string().contains("Missing Region"))
}

fn has_no_credentials(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<CredentialsError>())
}

/// The error and all that it comes from.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    iter::successors(Some(error), |error| (*error).source())
}

/// The refusal of a message as too large, with its size and, as far as is known, what its queue takes. A limit above the size is an old one.
pub(crate) fn with_size(error: PublishError, entry: &Entry, limit: Option<u64>) -> PublishError {
    let (size, form) = (entry.size(), entry.form());
    let takes = limit.filter(|limit| size > *limit);
    let takes = takes.map(|limit| format!(", and the queue takes {limit}"));
    let what = format!(
        "{}: it has {size} bytes on the wire{form}{}",
        error.what,
        takes.unwrap_or_default()
    );
    PublishError { what, ..error }
}

/// The code without its namespace, of which there are several in use.
fn bare(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code)
}

fn is_about_credentials(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "InvalidSecurity"
            | "OptInRequired"
    )
}

fn kind_of_call(code: &str, said: &str, status: u16) -> ErrorKind {
    match code {
        "QueueDoesNotExist" | "NonExistentQueue" | "QueueDeletedRecently" | "InvalidAddress" => {
            ErrorKind::UnknownTopic
        }
        "BatchRequestTooLong" => ErrorKind::TooLarge,
        "InvalidMessageContents" => ErrorKind::Rejected,
        // Whose parameter it is, a refusal of the whole call does not say, unless it speaks of the size.
        "InvalidParameterValue" | "InvalidAttributeValue" if speaks_of_size(said) => {
            ErrorKind::TooLarge
        }
        _ => kind_of_any(code, status),
    }
}

/// What may befall a call and an entry alike.
fn kind_of_any(code: &str, status: u16) -> ErrorKind {
    match code {
        "RequestThrottled"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "OverLimit"
        | "SlowDown"
        | "KmsThrottled" => ErrorKind::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "NotAuthorized"
        | "UnauthorizedOperation"
        | "KmsAccessDenied"
        | "KmsDisabled"
        | "KmsInvalidKeyUsage"
        | "KmsInvalidState"
        | "KmsNotFound"
        | "KmsOptInRequired" => ErrorKind::Unauthorized,
        code if is_about_credentials(code) => ErrorKind::Unauthorized,
        _ => match status {
            401 | 403 => ErrorKind::Unauthorized,
            429 => ErrorKind::Throttled,
            _ => ErrorKind::Unavailable,
        },
    }
}

fn speaks_of_size(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    // "Number of message attributes [11] exceeds the allowed maximum [10]."
    if said.contains("number of") {
        return false;
    }
    [
        "too long",
        "toolong",
        "too large",
        "shorter than",
        "exceeds",
    ]
    .iter()
    .any(|words| said.contains(words))
}

/// Why one entry of a batch was refused by itself.
pub(crate) fn entry(refused: &BatchResultErrorEntry) -> PublishError {
    let code = bare(&refused.code);
    let said = refused.message.as_deref().unwrap_or_default();
    let kind = match code {
        "InvalidMessageContents" => ErrorKind::Rejected,
        "BatchRequestTooLong" => ErrorKind::TooLarge,
        "InvalidParameterValue" | "InvalidAttributeValue" | "MissingParameter"
            if refused.sender_fault =>
        {
            if speaks_of_size(said) {
                ErrorKind::TooLarge
            } else {
                ErrorKind::Rejected
            }
        }
        _ => kind_of_any(code, 0),
    };
    let what = match said.trim() {
        "" => format!("SQS refuses the message: {code}"),
        said => format!("SQS refuses the message: {code}: {said}"),
    };
    PublishError::new(kind, what)
}

/// Whether an entry of an ack was refused because its delivery is no longer ours: its time has run out, or it is gone.
pub(crate) fn has_run_out(refused: &BatchResultErrorEntry) -> bool {
    match bare(&refused.code) {
        "ReceiptHandleIsInvalid" | "MessageNotInflight" => true,
        // That is how SQS says that a handle has expired, or that a message was held for twelve hours.
        "InvalidParameterValue" | "InvalidParameterCombination" => refused.sender_fault,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
