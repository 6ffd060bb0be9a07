//! YAML, as kubectl and the API server take it: one document, read as JSON's data model. Source: YAML 1.2,
//! with the 1.1 truth values (`yes`, `on`) that Go's reader takes.
