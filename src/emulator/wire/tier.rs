//! Service tiers, as requests ask for them and answers name them.

use serde_json::Value;

use super::{errors::ApiError, json::member};
use crate::call::ServiceTier;

/// Reads `serviceTier` or `service_tier`. `None`: the request names none, and gets the standard.
pub(super) fn tier_of(body: &Value) -> Result<Option<ServiceTier>, ApiError> {
    let Some(named) = member(body, "serviceTier", "service_tier") else { return Ok(None) };
    let name = named.as_str().unwrap_or_default();
    // OpenAI's names for the standard are `auto` and `default`.
    let standard = ["unspecified", "service_tier_unspecified", "auto", "default"];
    if standard.iter().any(|standard| name.eq_ignore_ascii_case(standard)) {
        return Ok(Some(ServiceTier::Standard));
    }
    ServiceTier::from_name(name).map(Some).ok_or_else(|| {
        let what = format!("Invalid value at 'service_tier' (type.googleapis.com/ServiceTier), {named}");
        ApiError::invalid_argument(what)
    })
}

/// Returns Vertex's name for the traffic of a tier.
pub(super) fn traffic_type(tier: ServiceTier) -> &'static str {
    match tier {
        ServiceTier::Standard => "ON_DEMAND",
        ServiceTier::Flex => "ON_DEMAND_FLEX",
        ServiceTier::Priority => "ON_DEMAND_PRIORITY",
        ServiceTier::Deferred => "ON_DEMAND_OFFPEAK",
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
            (json!({"serviceTier": "flex"}), Some(ServiceTier::Flex)),
            (json!({"service_tier": "PRIORITY"}), Some(ServiceTier::Priority)),
            (json!({"service_tier": "auto"}), Some(ServiceTier::Standard)),
            (json!({"serviceTier": "SERVICE_TIER_DEFERRED"}), Some(ServiceTier::Deferred)),
        ] {
            assert_eq!(tier_of(&body).unwrap(), tier, "{body}");
        }
        assert!(tier_of(&json!({"serviceTier": "gold"})).is_err());
    }
}
