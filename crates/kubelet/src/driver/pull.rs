//! Images for a pod's containers, by their pull policies, and who asks for them.
//!
//! Upstream: pkg/kubelet/images, pkg/kubelet/kubelet_pods.go (`getPullSecretsForPod`).

use runtime::Credential;

use super::{Context, words};
use crate::objects::ObjectKind;
use crate::worker::Event;

impl Context {
    pub(super) async fn pull(self, index: usize) {
        let spec = self.state.container_spec(index);
        let (image, policy) = (spec.image(), spec.image_pull_policy());
        let images = &self.core.doors.images;
        let present = match images.status(image).await {
            Ok(found) => found,
            Err(err @ runtime::Error::Reference { .. }) => {
                let message = format!("Failed to apply default image tag {image:?}: {err}");
                return self.tell(Event::ImageFailed(index, "InvalidImageName", message));
            }
            Err(err) => return self.tell(Event::ImageFailed(index, "ImageInspectError", words(&err))),
        };
        if let (Some(found), "IfNotPresent" | "Never") = (&present, policy) {
            let message = format!("Container image {image:?} already present on machine");
            self.record(index, false, "Pulled", message);
            return self.tell(Event::ImageReady(index, found.id.clone()));
        }
        if policy == "Never" {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            return self.tell(Event::ImageFailed(index, "ErrImageNeverPull", message));
        }
        self.record(index, false, "Pulling", format!("Pulling image {image:?}"));
        let begun = base::time::instant();
        let credentials = self.pull_credentials().await;
        match images.pull(image, &credentials).await {
            Ok(found) => {
                let took = begun.elapsed().as_millis();
                let size = found.size;
                let message = format!(
                    "Successfully pulled image {image:?} in {took}ms ({took}ms including waiting). Image size: {size} bytes."
                );
                self.record(index, false, "Pulled", message);
                self.tell(Event::ImageReady(index, found.id));
            }
            Err(err) => self.tell(Event::ImageFailed(index, "ErrImagePull", words(&err))),
        }
    }

    /// What the pod's image pull secrets hold. One that is missing or makes no sense is told, and the pull goes on
    /// without it, as upstream does.
    async fn pull_credentials(&self) -> Vec<Credential> {
        let namespace = self.pod().metadata().namespace().to_owned();
        let mut out = Vec::new();
        for secret in self.pod().spec().image_pull_secrets().iter() {
            let name = secret.name().to_owned();
            let wanted = [(ObjectKind::Secret, name.clone())];
            let fetched = self.core.objects.fetch(self.uid(), &namespace, &wanted).await;
            let found = fetched.ok().and_then(|objects| objects.get(ObjectKind::Secret, &namespace, &name));
            let data = found.map(|secret| ObjectKind::Secret.data(&secret)).unwrap_or_default();
            let read = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
                (Some(json), _) => Credential::from_docker_config(json),
                (None, Some(json)) => Credential::from_dockercfg(json),
                (None, None) => Err("it is not there or holds no credentials".to_owned()),
            };
            match read {
                Ok(credentials) => out.extend(credentials),
                Err(why) => {
                    tracing::warn!(secret = %name, %why, "an image pull secret is not used");
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({name}); attempting to pull the image may not succeed."
                    );
                    self.core.record(
                        self.state.pod.root(),
                        None,
                        true,
                        "FailedToRetrieveImagePullSecret",
                        message,
                    );
                }
            }
        }
        out
    }
}
