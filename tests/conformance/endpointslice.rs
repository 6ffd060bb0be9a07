//! network/endpointslice.go

use apimachinery::doc;

use crate::cluster::play;

#[test]
fn endpoint_slices_are_operated() {
    play(|c| async move {
        let slice = doc!({ "metadata": { "generateName": "slice-" }, "addressType": "IPv4", "endpoints": [
            { "addresses": ["1.2.3.4", "5.6.7.8"] }, { "addresses": ["2.2.3.4", "6.6.7.8"] }] });
        c.operates("discovery.k8s.io", "endpointslices", true, &slice).await;
    });
}
