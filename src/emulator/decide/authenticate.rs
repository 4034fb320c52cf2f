//! The caller of a request, identified by its credential.

use super::exchange::{ApiCaller, Exchange};
use crate::{
    call::Surface,
    emulator::{
        state::keyring::DEFAULT_PROJECT,
        wire::{
            credentials::RequestCredential,
            cut::cut,
            errors::ApiError,
            path::{rpc_method, segment_after, service},
            request::ApiRequest,
        },
    },
};

impl Exchange<'_> {
    /// Identifies the caller: by the key, or by the secret address of an upload.
    pub(super) fn identify<'a>(
        &self,
        request: Option<&ApiRequest>,
        credential: RequestCredential<'a>,
    ) -> Result<ApiCaller<'a>, ApiError> {
        if let (Some(ApiRequest::Resource(call)), RequestCredential::None) = (request, credential) {
            let uploader = call.continued_upload().and_then(|id| self.shared.state.lock().storage.uploader(id));
            if let Some(project) = uploader {
                return Ok(ApiCaller { project, key: None });
            }
        }
        self.authenticate(credential)
    }

    fn authenticate<'a>(&self, credential: RequestCredential<'a>) -> Result<ApiCaller<'a>, ApiError> {
        use RequestCredential::{Bearer, Key, Many, None as NoCredential, Unreadable};
        let settings = &self.shared.settings;
        let surface = self.surface();
        let project = match (surface, credential) {
            (_, Many) => return Err(ApiError::many_credentials()),
            (_, NoCredential) if settings.keyless => Some(DEFAULT_PROJECT.into()),
            (Surface::OpenAi, NoCredential | Unreadable) => return Err(ApiError::missing_authorization()),
            (Surface::Vertex, NoCredential) => return Err(self.missing_credential()),
            (_, NoCredential) => return Err(ApiError::unregistered_caller()),
            (_, Unreadable) => return Err(self.unsupported_token()),
            (_, Key(key)) => settings.keys.project(key),
            (Surface::OpenAi, Bearer(key)) => settings.keys.project(key),
            (Surface::Vertex, Bearer(token)) => match settings.keys.project(token) {
                None => return Err(self.unsupported_token()),
                project => project,
            },
            // With configured keys, a Bearer token on this surface is a key in the wrong place.
            (_, Bearer(_)) if settings.has_keys() => return Err(self.unsupported_token()),
            (_, Bearer(token)) => settings.keys.project(token),
        };
        // On Vertex, the path names the project that pays.
        let in_path = segment_after(self.head.uri.path(), "projects").filter(|_| surface == Surface::Vertex);
        let project = project.map(|project| in_path.map_or(project, |named| cut(named, 128).into()));
        let project = project.ok_or_else(ApiError::invalid_key)?;
        Ok(ApiCaller { project, key: credential.secret() })
    }

    fn missing_credential(&self) -> ApiError {
        let surface = self.surface();
        ApiError::missing_credential(service(surface), rpc_method(surface, self.head.uri.path()))
    }

    fn unsupported_token(&self) -> ApiError {
        let surface = self.surface();
        ApiError::unsupported_token(service(surface), rpc_method(surface, self.head.uri.path()))
    }
}
