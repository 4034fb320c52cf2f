//! Service tiers, as requests ask for them and answers name them.

use serde_json::Value;

use super::{errors::ApiError, json::member};

/// The tier of service that a request asks for, or that served it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EmulatedTier {
    #[default]
    Standard,
    Flex,
    Priority,
    Deferred,
}

// === impl EmulatedTier ===

impl EmulatedTier {
    /// Reads `serviceTier` or `service_tier`. `None`: the request names none, and gets the standard.
    pub(crate) fn of(body: &Value) -> Result<Option<Self>, ApiError> {
        let Some(named) = member(body, "serviceTier", "service_tier") else { return Ok(None) };
        let name = named.as_str().unwrap_or_default().to_ascii_lowercase();
        Ok(Some(match name.trim_start_matches("service_tier_") {
            // OpenAI's names for the standard are `auto` and `default`.
            "standard" | "unspecified" | "auto" | "default" => Self::Standard,
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            "deferred" => Self::Deferred,
            _ => {
                let what = format!("Invalid value at 'service_tier' (type.googleapis.com/ServiceTier), {named}");
                return Err(ApiError::invalid_argument(what));
            }
        }))
    }

    /// Returns the tier's name, as requests and answers have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Deferred => "deferred",
        }
    }

    /// Returns Vertex's name for the traffic of the tier.
    pub(crate) fn traffic_type(self) -> &'static str {
        match self {
            Self::Standard => "ON_DEMAND",
            Self::Flex => "ON_DEMAND_FLEX",
            Self::Priority => "ON_DEMAND_PRIORITY",
            Self::Deferred => "ON_DEMAND_OFFPEAK",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tier_is_read_in_both_spellings() {
        for (body, tier) in [
            (json!({}), None),
            (json!({"serviceTier": null}), None),
            (json!({"serviceTier": "flex"}), Some(EmulatedTier::Flex)),
            (json!({"service_tier": "PRIORITY"}), Some(EmulatedTier::Priority)),
            (json!({"service_tier": "auto"}), Some(EmulatedTier::Standard)),
            (json!({"serviceTier": "SERVICE_TIER_DEFERRED"}), Some(EmulatedTier::Deferred)),
        ] {
            assert_eq!(EmulatedTier::of(&body).unwrap(), tier, "{body}");
        }
        assert!(EmulatedTier::of(&json!({"serviceTier": "gold"})).is_err());
    }
}
