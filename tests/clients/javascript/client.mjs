// Lists, watches and writes with npm's @kubernetes/client-node, as its users do. Takes a kubeconfig; ends with 0 if all
// holds.

import assert from 'node:assert/strict';
import * as k8s from '@kubernetes/client-node';

const namespace = 'javascript';
const kc = new k8s.KubeConfig();
kc.loadFromFile(process.argv[2]);
const core = kc.makeApiClient(k8s.CoreV1Api);
const apps = kc.makeApiClient(k8s.AppsV1Api);

async function refused(code, promise) {
    const error = await promise.then(
        () => assert.fail(`was to be refused with ${code}`),
        (error) => error,
    );
    assert.equal(error.code, code, String(error));
    return String(error.body?.message ?? error.body);
}

/** Events of a watch until `last` holds of one. */
function watched(path, query, last) {
    return new Promise((resolve, reject) => {
        const seen = [];
        let request;
        new k8s.Watch(kc)
            .watch(
                path,
                query,
                (type, object) => {
                    seen.push([type, object]);
                    if (last(type, object)) {
                        resolve(seen);
                        request?.abort();
                    }
                },
                (error) => (error && error.name !== 'AbortError' ? reject(error) : resolve(seen)),
            )
            .then((controller) => (request = controller), reject);
    });
}

async function configMaps() {
    const begin = (await core.listNamespacedConfigMap({ namespace })).metadata.resourceVersion;
    const body = { metadata: { name: 'a', labels: { of: 'javascript' } }, data: { n: '1' } };
    await core.createNamespacedConfigMap({ namespace, body });
    const read = await core.readNamespacedConfigMap({ namespace, name: 'a' });
    assert.deepEqual(read.data, { n: '1' });
    const stale = structuredClone({ ...read, metadata: { ...read.metadata } });
    read.data = { n: '2' };
    await core.replaceNamespacedConfigMap({ namespace, name: 'a', body: read });
    const why = await refused(409, core.replaceNamespacedConfigMap({ namespace, name: 'a', body: stale }));
    assert.match(why, /the object has been modified/);
    await core.patchNamespacedConfigMap(
        { namespace, name: 'a', body: { data: { m: '3' } } },
        k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.StrategicMergePatch),
    );
    await core.deleteNamespacedConfigMap({ namespace, name: 'a' });
    await refused(404, core.readNamespacedConfigMap({ namespace, name: 'a' }));

    const events = await watched(
        `/api/v1/namespaces/${namespace}/configmaps`,
        { resourceVersion: begin, labelSelector: 'of=javascript', timeoutSeconds: 60 },
        (type) => type === 'DELETED',
    );
    assert.deepEqual(
        events.map(([type, object]) => [type, object.data]),
        [
            ['ADDED', { n: '1' }],
            ['MODIFIED', { n: '2' }],
            ['MODIFIED', { n: '2', m: '3' }],
            ['DELETED', { n: '2', m: '3' }],
        ],
    );
}

/** The library's informer: a list, then a watch that it keeps. */
async function informer() {
    const path = `/api/v1/namespaces/${namespace}/secrets`;
    const informer = k8s.makeInformer(kc, path, () => core.listNamespacedSecret({ namespace }));
    const added = new Promise((resolve, reject) => {
        informer.on('add', (secret) => secret.metadata.name === 'late' && resolve(secret));
        informer.on('error', reject);
    });
    await informer.start();
    const body = { metadata: { name: 'late' }, stringData: { password: 'x' } };
    await core.createNamespacedSecret({ namespace, body });
    assert.equal((await added).data.password, 'eA==');
    await informer.stop();
}

async function deployments() {
    const labels = { app: 'web' };
    const template = { metadata: { labels }, spec: { containers: [{ name: 'web', image: 'web' }] } };
    const body = { metadata: { name: 'web' }, spec: { replicas: 1, selector: { matchLabels: labels }, template } };
    await apps.createNamespacedDeployment({ namespace, body });
    await apps.patchNamespacedDeploymentScale(
        { namespace, name: 'web', body: [{ op: 'replace', path: '/spec/replicas', value: 2 }] },
        k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.JsonPatch),
    );
    await watched(
        `/apis/apps/v1/namespaces/${namespace}/deployments`,
        { timeoutSeconds: 60 },
        (_, deployment) => deployment.status?.replicas === 2,
    );
    const sets = await apps.listNamespacedReplicaSet({ namespace });
    assert.equal(sets.items[0].metadata.ownerReferences[0].name, 'web');
}

/** The library's way for objects of any kind, by discovery. */
async function anyKind() {
    const client = k8s.KubernetesObjectApi.makeApiClient(kc);
    const quota = {
        apiVersion: 'v1',
        kind: 'ResourceQuota',
        metadata: { name: 'q', namespace },
        spec: { hard: { pods: '5' } },
    };
    await client.create(quota);
    const read = await client.read({ apiVersion: 'v1', kind: 'ResourceQuota', metadata: { name: 'q', namespace } });
    assert.equal(read.spec.hard.pods, '5');
    await client.delete(quota);
}

await core.createNamespace({ body: { metadata: { name: namespace } } });
await configMaps();
await informer();
await deployments();
await anyKind();
await core.deleteNamespace({ name: namespace });
process.exit(0);
