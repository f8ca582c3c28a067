//! Calls to Keystone about other people's tokens.

use crate::Cloud;
use crate::auth::sensitive;
use crate::call::{Ask, Service};
use crate::error::Error;
use crate::secret::Secret;
use crate::wire::keystone::{Bearer, ValidationAnswer};

impl Cloud {
    /// What a caller's token is worth; none if Keystone does not know it, or no longer (`GET /v3/auth/tokens`).
    ///
    /// Nothing is cached here. Whoever accepts the token also enforces its access rules.
    pub async fn validate(&self, token: &Secret) -> Result<Option<Bearer>, Error> {
        if token.reveal().is_empty() || sensitive(token).is_none() {
            return Ok(None); // no header can carry it, so no Keystone issued it
        }
        let mut ask = Ask::get(self, Service::Identity, "/auth/tokens", None).with("nocatalog", true);
        ask.subject = Some(token.clone());
        match self.call(&ask).await {
            Ok(answer) => Ok(Some(answer.json::<ValidationAnswer>()?.token)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }
}
