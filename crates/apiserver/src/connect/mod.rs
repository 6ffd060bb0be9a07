//! Resources and subresources with code of their own, one per file, one ordered list.

mod html;
pub mod log;
pub mod proxy;
pub mod reviews;
pub mod stream;
pub mod token;

use std::sync::Arc;

use apimachinery::gvk::GroupVersion;
use apimachinery::{Doc, Reply, Status};

use crate::authentication::service_account::ServiceAccounts;
use crate::authorization::rbac::Rbac;
use crate::endpoints::decode::{self, Expected};
use crate::tokens::Tokens;
use crate::tunnel::Tunnels;
use crate::{Connect, Request, admission};

/// All of them.
pub fn connectors(
    tokens: Arc<Tokens>,
    accounts: Arc<ServiceAccounts>,
    rbac: Arc<Rbac>,
    tunnels: Tunnels,
) -> Vec<Box<dyn Connect>> {
    vec![
        Box::new(log::Log { tunnels: tunnels.clone() }),
        Box::new(stream::Stream { tunnels: tunnels.clone() }),
        Box::new(proxy::Proxy { tunnels }),
        Box::new(token::Token { tokens }),
        Box::new(reviews::Reviews { accounts, rbac }),
    ]
}

/// What a client created to ask something, decoded by the rules of its kind and admitted.
async fn asked(request: &Request, group: &str, version: &str, kind: &str) -> Result<Doc, Status> {
    let schema = apimachinery::schema::kind(group, version, kind)
        .ok_or_else(|| Status::internal(format!("{kind} is missing in the schema table")))?;
    let gv = GroupVersion { group: group.to_owned().into(), version: version.to_owned().into() };
    let expected = Expected { kind, gv: &gv, schema };
    let object = decode::object(&request.body, &expected, request.options.field_validation, &mut Vec::new())?;
    admission::asked(request, object).await
}

/// An error with all its causes.
fn words(err: &dyn std::error::Error) -> String {
    let mut out = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        out = format!("{out}: {cause}");
        source = cause.source();
    }
    out
}

/// A query's value, percent-encoded but for unreserved characters. Source: RFC 3986.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn created(doc: Doc) -> Reply {
    Reply::Doc { code: 201, doc: Box::new(doc), warnings: Vec::new() }
}
