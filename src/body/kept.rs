//! A request that is kept while it is under way, so that it can be sent again.

use http::{Extensions, Method, Request, Uri, Version};

use super::Resend;
use crate::context::{CallContext, CallRef, KeptHeaders};

/// A copy of a request as it came. Most are never needed, so it costs as little as it can until it is sent.
pub(crate) struct KeptRequest<B> {
    method: Method,
    uri: Uri,
    version: Version,
    headers: KeptHeaders,
    /// The context, where it is the only extension: its clone needs no memory of its own.
    context: Option<CallContext>,
    /// All extensions, where there are others.
    extensions: Extensions,
    body: B,
}

impl<B: Resend> KeptRequest<B> {
    /// Keeps a request. `None`: its body can be sent only once.
    pub(crate) fn of(request: &Request<B>) -> Option<Self> {
        let body = request.body().try_clone()?;
        let (context, extensions) = (CallContext::of(request), request.extensions());
        let is_alone = extensions.len() == usize::from(context.is_some());
        Some(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: KeptHeaders::of(request.headers(), context.and_then(CallContext::kept_headers)),
            context: context.filter(|_| is_alone).cloned(),
            extensions: if is_alone { Extensions::new() } else { extensions.clone() },
            body,
        })
    }

    /// Returns the request once more.
    pub(crate) fn again(&self) -> Option<Request<B>> {
        let mut request = Request::new(self.body.try_clone()?);
        *request.headers_mut() = self.headers.to_map()?;
        *request.extensions_mut() = self.extensions.clone();
        if let Some(context) = &self.context {
            request.extensions_mut().insert(context.clone());
        }
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        *request.version_mut() = self.version;
        Some(request)
    }

    /// Returns the headers, for another layer that keeps the request.
    pub(crate) fn headers(&self) -> &KeptHeaders {
        &self.headers
    }

    /// Returns the context that came with the request.
    pub(crate) fn context(&self) -> Option<&CallContext> {
        self.context.as_ref().or_else(|| self.extensions.get())
    }

    /// Reads the call that the request makes.
    pub(crate) fn call(&self) -> CallRef<'_> {
        CallRef::in_parts(self.context(), &self.method, &self.uri)
    }

    /// Returns the body from its beginning.
    pub(crate) fn body(&self) -> &B {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn a_request_comes_again_as_it_was() {
        for others in [false, true] {
            let request = Request::put("https://host/v1beta/models/m:generateContent?a=b").version(Version::HTTP_2);
            let request = request.header("x-one", "1");
            let mut request = request.body(Full::new(Bytes::from_static(b"body"))).unwrap();
            CallContext::update(request.extensions_mut(), |context| context.set_attempt(7));
            if others {
                request.extensions_mut().insert(8_u8);
            }
            let kept = KeptRequest::of(&request).unwrap();
            assert_eq!((kept.context().map(CallContext::attempt), kept.call().model()), (Some(7), Some("m")));
            let again = kept.again().unwrap();
            assert_eq!(
                (again.method(), again.uri(), again.version()),
                (request.method(), request.uri(), Version::HTTP_2)
            );
            assert_eq!((again.headers(), again.extensions().len()), (request.headers(), 1 + usize::from(others)));
            assert_eq!(CallContext::of(&again).map(CallContext::attempt), Some(7));
            assert_eq!(again.extensions().get(), others.then_some(&8_u8));
            assert_eq!(again.into_body().collect().await.unwrap().to_bytes(), "body");
        }
    }
}
