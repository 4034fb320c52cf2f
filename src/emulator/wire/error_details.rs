//! The details of Google's errors.

use serde::{Serialize, Serializer, ser::SerializeMap};

/// An entry of an error's `details`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "@type", rename_all_fields = "camelCase")]
pub(super) enum Detail {
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    ErrorInfo {
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        domain: Option<&'static str>,
        #[serde(serialize_with = "as_map")]
        metadata: Vec<(&'static str, String)>,
    },
    #[serde(rename = "type.googleapis.com/google.rpc.LocalizedMessage")]
    LocalizedMessage { locale: &'static str, message: String },
    #[serde(rename = "type.googleapis.com/google.rpc.QuotaFailure")]
    QuotaFailure { violations: Vec<QuotaViolation> },
    #[serde(rename = "type.googleapis.com/google.rpc.Help")]
    Help { links: Vec<Link> },
    #[serde(rename = "type.googleapis.com/google.rpc.RetryInfo")]
    RetryInfo { retry_delay: String },
    #[serde(rename = "type.googleapis.com/google.rpc.BadRequest")]
    BadRequest { field_violations: Vec<FieldViolation> },
}

impl Detail {
    pub(super) fn error_info(
        reason: &'static str,
        domain: Option<&'static str>,
        metadata: Vec<(&'static str, String)>,
    ) -> Self {
        Self::ErrorInfo { reason, domain, metadata }
    }

    pub(super) fn localized(message: &str) -> Self {
        Self::LocalizedMessage { locale: "en-US", message: message.into() }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuotaViolation {
    pub(super) quota_metric: String,
    pub(super) quota_id: String,
    pub(super) quota_dimensions: QuotaDimensions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quota_value: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct QuotaDimensions {
    pub(super) location: &'static str,
    pub(super) model: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Link {
    pub(super) description: &'static str,
    pub(super) url: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct FieldViolation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    pub(super) description: String,
}

fn as_map<S: Serializer>(pairs: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (name, value) in pairs {
        map.serialize_entry(name, value)?;
    }
    map.end()
}
