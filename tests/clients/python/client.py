"""Lists, watches and writes with Python's `kubernetes`, as its users do. Takes a kubeconfig; ends with 0 if all holds."""

import sys
import threading

from kubernetes import client, config, utils, watch
from kubernetes.client.rest import ApiException

NS = "python"


def refused(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == code, error
        return error.body
    raise AssertionError(f"{call.__name__} was to be refused with {code}")


def config_maps(core):
    """The life of a ConfigMap, seen by a watch from before it."""
    begin = core.list_namespaced_config_map(NS).metadata.resource_version
    core.create_namespaced_config_map(
        NS, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a", labels={"of": "python"}), data={"n": "1"}))
    read = core.read_namespaced_config_map("a", NS)
    assert read.data == {"n": "1"} and read.metadata.labels == {"of": "python"}

    stale = core.read_namespaced_config_map("a", NS)
    read.data["n"] = "2"
    read = core.replace_namespaced_config_map("a", NS, read)
    assert "the object has been modified" in refused(409, core.replace_namespaced_config_map, "a", NS, stale)

    core.patch_namespaced_config_map("a", NS, {"data": {"m": "3"}})
    core.patch_namespaced_config_map("a", NS, [{"op": "remove", "path": "/data/n"}])
    assert core.read_namespaced_config_map("a", NS).data == {"m": "3"}
    core.delete_namespaced_config_map("a", NS)
    assert "NotFound" in refused(404, core.read_namespaced_config_map, "a", NS)

    seen, stream = [], watch.Watch()
    for event in stream.stream(core.list_namespaced_config_map, NS, resource_version=begin,
                               label_selector="of=python", timeout_seconds=60):
        seen.append((event["type"], event["object"].data))
        if event["type"] == "DELETED":
            stream.stop()
    assert seen == [
        ("ADDED", {"n": "1"}),
        ("MODIFIED", {"n": "2"}),
        ("MODIFIED", {"n": "2", "m": "3"}),
        ("MODIFIED", {"m": "3"}),
        ("DELETED", {"m": "3"}),
    ], seen


def live_watch(core):
    """A watch that waits is told of what another thread does then."""
    found, ready = threading.Event(), threading.Event()

    def look():
        stream = watch.Watch()
        ready.set()
        for event in stream.stream(core.list_namespaced_secret, NS, timeout_seconds=60):
            if event["object"].metadata.name == "late":
                found.set()
                stream.stop()

    thread = threading.Thread(target=look)
    thread.start()
    ready.wait()
    core.create_namespaced_secret(
        NS, client.V1Secret(metadata=client.V1ObjectMeta(name="late"), string_data={"password": "x"}))
    thread.join(60)
    assert found.is_set()
    assert core.read_namespaced_secret("late", NS).data == {"password": "eA=="}


def pages(core):
    for n in range(25):
        core.create_namespaced_config_map(NS, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"page-{n:02}")))
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(NS, limit=10, _continue=token)
        assert len(page.items) <= 10
        names += [item.metadata.name for item in page.items if item.metadata.name.startswith("page-")]
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"page-{n:02}" for n in range(25)], names
    core.delete_collection_namespaced_config_map(NS, field_selector="metadata.name=page-00")
    assert len([c for c in core.list_namespaced_config_map(NS).items if c.metadata.name.startswith("page-")]) == 24


def deployments(api, apps):
    """A deployment from a plain object, scaled; controllers make its set and pods."""
    utils.create_from_dict(api, {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": NS},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web", "resources": {"requests": {"cpu": "0.1"}}}]}}}})
    scale = apps.read_namespaced_deployment_scale("web", NS)
    assert scale.spec.replicas == 2 and scale.status.selector == "app=web"
    apps.patch_namespaced_deployment_scale("web", NS, {"spec": {"replicas": 3}})
    stream = watch.Watch()
    for event in stream.stream(apps.list_namespaced_deployment, NS, timeout_seconds=60):
        if event["object"].status.replicas == 3:
            stream.stop()
    sets = apps.list_namespaced_replica_set(NS, label_selector="app=web").items
    assert len(sets) == 1 and sets[0].metadata.owner_references[0].kind == "Deployment"
    bad = client.V1Deployment(metadata=client.V1ObjectMeta(name="bad"), spec=client.V1DeploymentSpec(
        selector=client.V1LabelSelector(match_labels={"a": "b"}), template=client.V1PodTemplateSpec(
            metadata=client.V1ObjectMeta(labels={"a": "c"}),
            spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="i")]))))
    assert "does not match template" in refused(422, apps.create_namespaced_deployment, NS, bad)


def main():
    config.load_kube_config(sys.argv[1])
    api = client.ApiClient()
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    assert client.VersionApi(api).get_code().major == "1"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NS)))
    config_maps(core)
    live_watch(core)
    pages(core)
    deployments(api, apps)
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(
        resource_attributes=client.V1ResourceAttributes(verb="delete", resource="nodes")))
    assert client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed
    core.delete_namespace(NS)


main()
