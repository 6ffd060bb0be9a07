//! Resources and subresources with code of their own, one per file, one ordered list.

pub mod log;
pub mod reviews;
pub mod token;

use std::sync::Arc;

use apimachinery::call::Body;
use apimachinery::{Doc, Reply, Status};

use crate::authentication::service_account::ServiceAccounts;
use crate::authorization::rbac::Rbac;
use crate::tokens::Tokens;
use crate::tunnel::Tunnels;
use crate::{Connect, Request};

/// All of them.
pub fn connectors(
    tokens: Arc<Tokens>,
    accounts: Arc<ServiceAccounts>,
    rbac: Arc<Rbac>,
    tunnels: Tunnels,
) -> Vec<Box<dyn Connect>> {
    vec![
        Box::new(log::Log { tunnels }),
        Box::new(token::Token { tokens }),
        Box::new(reviews::Reviews { accounts, rbac }),
    ]
}

/// What a client created to ask something, decoded by the rules of its kind.
fn asked(request: &Request, group: &str, version: &str, kind: &str) -> Result<Doc, Status> {
    let ty = apimachinery::schema::kind(group, version, kind)
        .ok_or_else(|| Status::internal(format!("{kind} is missing in the schema table")))?;
    match &request.body {
        Body::Doc { doc, .. } => Ok(Doc::clone(doc)),
        Body::Empty => Err(Status::bad_request(format!("a {kind} is needed as the request's body"))),
        Body::Bytes { bytes, .. } => {
            let parsed = apimachinery::codec::json::parse(bytes.to_vec())
                .map_err(|err| Status::bad_request(err.to_string()))?;
            let decoded = apimachinery::schema::decode::decode(&parsed, ty).map_err(|err| {
                Status::bad_request(format!(
                    "{kind} in version {version:?} cannot be handled as a {kind}: {err}"
                ))
            })?;
            Ok(decoded.doc)
        }
    }
}

fn created(doc: Doc) -> Reply {
    Reply::Doc { code: 201, doc: Box::new(doc), warnings: Vec::new() }
}
