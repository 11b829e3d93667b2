//! What a call of the API is answered: what was asked for, or why not.

use serde::Serialize;

use crate::store::{Error, Kind};

/// An answer of status 200.
pub(crate) struct Answer {
    pub media: &'static str,
    pub body: Vec<u8>,
    /// What its head says beside what all say.
    pub header: Option<(&'static str, String)>,
}

impl Answer {
    pub(super) fn of(media: &'static str, body: impl Into<Vec<u8>>) -> Answer {
        Answer { media, body: body.into(), header: None }
    }

    pub(super) fn json(body: &impl Serialize) -> Result<Answer, Failure> {
        let mut body = serde_json::to_vec(body)?;
        body.push(b'\n');
        Ok(Answer::of("application/json", body))
    }
}

/// Why a call is refused: a status and what is said of it.
#[derive(Debug)]
pub(crate) struct Failure(pub u16, pub String);

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        match e.kind {
            Kind::NoRow => Failure(400, format!("Invalid after: {e}")),
            Kind::Wrong | Kind::Exists => Failure(409, e.message),
            // Its own words may name hosts and users, and the log has them.
            _ => Failure(503, "The database does not answer: try again in a minute".into()),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(_: serde_json::Error) -> Failure {
        Failure(500, "This cannot be expressed in JSON: please report it".into())
    }
}
