//! The names in a path, and those behind it, that checks and messages need.

use super::cut::cut;
use crate::call::Surface;

/// The name of the Developer API's service, which is its host.
pub(crate) const DEVELOPER_SERVICE: &str = "generativelanguage.googleapis.com";

/// Returns the path's version segment, or `v1beta` if it has none.
pub(crate) fn version(path: &str) -> &str {
    let is_version = |segment: &&str| {
        segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    path.split('/').find(is_version).unwrap_or("v1beta")
}

/// Splits a path into what stands before its version segment and what stands behind it.
pub(crate) fn around_version(path: &str) -> Option<(&str, &str)> {
    path.split_once(&format!("/{}/", version(path)))
}

/// Returns whether a path is one of Vertex's.
pub(crate) fn is_on_vertex(path: &str) -> bool {
    let first = around_version(path).and_then(|(_, rest)| rest.split('/').next());
    matches!(first, Some("projects" | "publishers" | "locations"))
}

/// Returns the segment that follows the segment `name`.
pub(crate) fn segment_after<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.split('/').skip_while(|segment| *segment != name).nth(1).filter(|segment| !segment.is_empty())
}

/// Returns `projects/…/models/{model}`: the part between the version and the method.
pub(crate) fn publisher_model(path: &str) -> &str {
    let resource = path.split_once(version(path)).map_or(path, |(_, resource)| resource);
    resource.split(':').next().unwrap_or(resource).trim_matches('/')
}

/// Returns the name of the service that serves a surface.
pub(crate) fn service(surface: Surface) -> &'static str {
    match surface {
        Surface::Vertex => "aiplatform.googleapis.com",
        _ => DEVELOPER_SERVICE,
    }
}

/// Returns the full name of the gRPC method behind a path.
pub(crate) fn rpc_method(surface: Surface, path: &str) -> String {
    let action = path.rsplit(':').next().filter(|action| !action.contains('/')).unwrap_or("listModels");
    let action = cut(action, 64);
    let mut letters = action.chars();
    let method: String = letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect();
    match surface {
        Surface::Vertex => format!("google.cloud.aiplatform.{}.PredictionService.{method}", version(path)),
        _ => format!("google.ai.generativelanguage.{}.GenerativeService.{method}", version(path)),
    }
}
