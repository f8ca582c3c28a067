//! Decides whether a call may be sent again, and after which pause; asks nobody and waits for nothing.
//!
//! |                                                | may be repeated           | must happen once          |
//! |------------------------------------------------|---------------------------|---------------------------|
//! | no connection (refused, no route, no name)     | again                     | again: nothing was sent   |
//! | certificate not trusted                        | error                     | error                     |
//! | 401, said by the middleware before the service | again, once, new token    | again, once, new token    |
//! | 429, said by a limiter before the service      | again                     | again                     |
//! | 5xx, 408                                       | again, at last *unknown*  | *unknown*                 |
//! | no answer, reset, limit passed                 | again, at last *unknown*  | *unknown*                 |
//! | 2xx, then the body breaks off                  | again                     | done: the status says so  |
//!
//! A 5xx proves nothing: Nova answers 500 also after its message has left, and proxies 502 to 504 also for what they forwarded.
//! What may be repeated are reads, a new token, and the `PUT` of a compute service, which sets a state and not a change. Of a read nothing is
//! *unknown*: it is simply not read.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::Limits;

/// Whether a second execution of a call would do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Executed twice it does the same as once.
    Safe,
    /// To be executed at most once.
    Once,
}

/// How one attempt ended, as far as a repetition depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    NotSent,
    /// Not sent either, but the next attempt would meet the same certificate.
    NotTrusted,
    NoAnswer,
    BrokenOff,
    Answered(StatusCode),
}

/// Whether another attempt is allowed and promises anything; the table is in the module's description.
pub(crate) fn again(repeat: Repeat, ending: Ending) -> bool {
    match ending {
        Ending::NotSent | Ending::Answered(StatusCode::TOO_MANY_REQUESTS) => true,
        Ending::NotTrusted => false,
        Ending::NoAnswer | Ending::BrokenOff => repeat == Repeat::Safe,
        Ending::Answered(status) => repeat == Repeat::Safe && may_pass(status),
    }
}

fn may_pass(status: StatusCode) -> bool {
    is_ambiguous(status) && !matches!(status, StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED)
}

/// Whether an error status leaves open that the service did it all the same: proxies and CDNs have more of them than RFC 9110.
pub(crate) fn is_ambiguous(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
}

/// The pause before attempt `attempt + 1`: what the service asked for, else exponential with full jitter, so that callers who failed
/// together do not come back together. `jitter` is a random number in 0..1.
pub(crate) fn pause(attempt: u32, retry_after: Option<Duration>, limits: &Limits, jitter: f64) -> Duration {
    let grown = limits.pause.saturating_mul(1 << attempt.min(16)).min(limits.longest_pause);
    match retry_after {
        Some(asked) => asked + limits.pause.mul_f64(jitter),
        None => grown.mul_f64(jitter),
    }
}

/// More than this nobody means, and a sum of times must not overflow on a stranger's number.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// What `Retry-After` asks for, in seconds or as a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = || text.parse().ok().map(Duration::from_secs);
    let date = || Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default());
    seconds().or_else(date).map(|wait: Duration| wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_ERRORS: [u16; 4] = [500, 502, 503, 504];

    fn status(code: u16) -> Ending {
        Ending::Answered(StatusCode::from_u16(code).expect("a status"))
    }

    #[test]
    fn a_read_is_repeated_after_whatever_may_pass() {
        let passing = SERVER_ERRORS.map(status).into_iter().chain([
            Ending::NotSent,
            Ending::NoAnswer,
            Ending::BrokenOff,
            status(429),
        ]);
        assert!(passing.into_iter().all(|ending| again(Repeat::Safe, ending)));
        assert!([400, 403, 404, 409, 501].map(status).into_iter().all(|ending| !again(Repeat::Safe, ending)));
    }

    #[test]
    fn what_must_happen_once_is_repeated_only_when_it_surely_did_not_happen() {
        assert!(again(Repeat::Once, Ending::NotSent));
        assert!(again(Repeat::Once, status(429)));
        let rest = SERVER_ERRORS.map(status).into_iter().chain([
            Ending::NoAnswer,
            Ending::BrokenOff,
            status(400),
            status(409),
        ]);
        assert!(rest.into_iter().all(|ending| !again(Repeat::Once, ending)));
    }

    #[test]
    fn pauses_grow_to_their_ceiling_and_never_overflow() {
        let limits =
            Limits { pause: Duration::from_millis(200), longest_pause: Duration::from_secs(5), ..Limits::default() };
        let longest = |attempt| pause(attempt, None, &limits, 1.0);
        assert_eq!(longest(0), Duration::from_millis(200));
        assert_eq!(longest(2), Duration::from_millis(800));
        assert_eq!(longest(u32::MAX), Duration::from_secs(5));
        assert_eq!(pause(3, None, &limits, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_service_that_names_a_time_is_not_asked_before() {
        let limits = Limits::default();
        let asked = Duration::from_secs(7);
        assert!([0.0, 0.5, 0.999].into_iter().all(|jitter| pause(0, Some(asked), &limits, jitter) >= asked));
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 22 Nov 2026 12:00:00 GMT").expect("a date");
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("a header"))]);
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Sun, 22 Nov 2026 12:00:30 GMT"), Some(30));
        assert_eq!(read("Sun, 22 Nov 2026 11:00:00 GMT"), Some(0));
        assert_eq!(read("soon"), None);
        assert_eq!(read("18446744073709551615"), Some(86_400));
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
