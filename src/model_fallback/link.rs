//! A model of a chain, the service tier that it is asked in, and the chains of a model by tier.

use std::{fmt, sync::Arc};

use http::{HeaderValue, Uri};

use crate::call::{Call, ServiceTier};

/// A model that a chain names, and the service tier to ask it in, where that is not the caller's.
///
/// Made from a text, which may name the tier behind an `@`:
///
/// ```
/// use tower_gemini::{call::ServiceTier, model_fallback::FallbackModel};
///
/// let priority = FallbackModel::new("gemini-2.5-pro").service_tier(ServiceTier::Priority);
/// assert_eq!(FallbackModel::from("gemini-2.5-pro@priority"), priority);
/// assert_eq!(priority.to_string(), "gemini-2.5-pro@priority");
/// assert_eq!(FallbackModel::from("gemini-2.5-pro").tier(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FallbackModel {
    name: String,
    tier: Option<ServiceTier>,
}

impl FallbackModel {
    /// Creates the model of that bare name, in the tier of each call.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), tier: None }
    }

    /// Sets the service tier in which the model is asked, whatever tier a call names.
    #[must_use]
    pub fn service_tier(mut self, tier: ServiceTier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// Returns the model's bare name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the service tier in which it is asked. `None`: in that of each call.
    pub fn tier(&self) -> Option<ServiceTier> {
        self.tier
    }
}

/// Reads `model` or `model@tier`. What stands behind an `@` and is no tier belongs to the name.
impl From<&str> for FallbackModel {
    fn from(text: &str) -> Self {
        let (name, tier) = ServiceTier::split(text);
        Self { name: name.to_owned(), tier }
    }
}

impl From<String> for FallbackModel {
    fn from(text: String) -> Self {
        Self::from(&*text)
    }
}

impl From<&String> for FallbackModel {
    fn from(text: &String) -> Self {
        Self::from(&**text)
    }
}

impl fmt::Display for FallbackModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.tier.map_or(Ok(()), |tier| write!(f, "@{tier}"))
    }
}

/// A model of a chain, checked: its name as text and as a header's value, and its tier.
pub(super) struct ChainLink {
    pub(super) name: Arc<str>,
    pub(super) tier: Option<ServiceTier>,
    pub(super) header: HeaderValue,
}

impl ChainLink {
    /// Checks a model's name. `None`: it could not stand in a path, or is a tier alone.
    pub(super) fn new(model: &FallbackModel) -> Option<Self> {
        if model.name.starts_with('@') {
            return None;
        }
        Call::uri_with_model(&Uri::from_static("/v1/models/m:generateContent"), &model.name)?;
        let header = HeaderValue::from_str(&model.name).ok()?;
        Some(Self { name: model.name.as_str().into(), tier: model.tier, header })
    }

    /// Returns the model and the tier that a call of this tier meets here.
    pub(super) fn for_tier(&self, tier: ServiceTier) -> (&str, ServiceTier) {
        (&self.name, self.tier.unwrap_or(tier))
    }

    /// Returns the name of what a call of this tier meets here, with its tier where that is not the standard one.
    pub(super) fn label(&self, tier: ServiceTier) -> Arc<str> {
        let (name, tier) = self.for_tier(tier);
        match tier {
            ServiceTier::Standard => self.name.clone(),
            tier => tier.of_model(name).into(),
        }
    }
}

impl fmt::Display for ChainLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.tier.map_or(Ok(()), |tier| write!(f, "@{tier}"))
    }
}

/// The numbers of the chains of one model that is asked for.
#[derive(Default)]
pub(super) struct ChainsOfModel {
    /// The chain of calls of the tiers that have none of their own.
    any: Option<usize>,
    /// The chains of single tiers.
    by_tier: Vec<(ServiceTier, usize)>,
}

impl ChainsOfModel {
    /// Returns the number of the chain of a call of this tier.
    pub(super) fn of_tier(&self, tier: ServiceTier) -> Option<usize> {
        let own = self.by_tier.iter().find(|(of, _)| *of == tier);
        own.map(|(_, at)| *at).or(self.any)
    }

    /// Returns the number of the chain of this tier, or of all tiers, and whether it was known. It is `new` if it was not.
    pub(super) fn entry(&mut self, tier: Option<ServiceTier>, new: usize) -> (usize, bool) {
        let known = match tier {
            None => self.any,
            Some(tier) => self.by_tier.iter().find(|(of, _)| *of == tier).map(|(_, at)| *at),
        };
        if let Some(at) = known {
            return (at, true);
        }
        match tier {
            None => self.any = Some(new),
            Some(tier) => self.by_tier.push((tier, new)),
        }
        (new, false)
    }
}
