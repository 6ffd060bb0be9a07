//! apimachinery/table_conversion.go

use apimachinery::doc;

use crate::cluster::play;

#[test]
fn what_has_no_metadata_has_no_table() {
    play(|c| async move {
        let review = doc!({ "spec": { "nonResourceAttributes": { "path": "/", "verb": "get" } } });
        let accept = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
        let uri = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        c.send("POST", uri, &accept, review.to_json().into()).await.fails(406);
        // A client that takes the object, too, gets it.
        let accept = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1, application/json")];
        c.send("POST", uri, &accept, review.to_json().into()).await.ok();
    });
}
