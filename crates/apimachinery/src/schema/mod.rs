//! The schema table: what every built-in type looks like, generated from `schema/*.txt` by `cargo xtask codegen`.
//!
//! The table is a blob that is read in place: no parsing at start, no allocation, and every handle ([`TypeId`], [`Go`],
//! [`Field`]) is a few bytes and `Copy`. It knows structure only: no validation, and of defaults only the few that
//! upstream states as markers.
//! Upstream: the struct tags and markers of k8s.io/api and k8s.io/apimachinery.
use crate::doc::Key;

pub mod decode;
pub mod keys;
pub mod normalise;
pub mod view;
#[rustfmt::skip]
pub mod views;

static BLOB: &[u8] = include_bytes!("schema.bin");
const NONE: u16 = u16::MAX;

/// Sections of the blob in the order of its header.
#[derive(Clone, Copy)]
enum Section {
    Strings,
    StringEnds,
    Lists,
    Nodes,
    Types,
    Fields,
    ByKey,
    Kinds,
}

fn u16_at(at: usize) -> u16 {
    u16::from_le_bytes([BLOB[at], BLOB[at + 1]])
}

fn u32_at(at: usize) -> usize {
    u32::from_le_bytes([BLOB[at], BLOB[at + 1], BLOB[at + 2], BLOB[at + 3]]) as usize
}

impl Section {
    fn start(self) -> usize {
        u32_at(self as usize * 8)
    }

    fn count(self) -> usize {
        u32_at(self as usize * 8 + 4)
    }
}

fn string(id: u16) -> &'static str {
    let (ends, id) = (Section::StringEnds.start(), usize::from(id));
    let from = if id == 0 { 0 } else { u32_at(ends + id * 4 - 4) };
    let start = Section::Strings.start();
    std::str::from_utf8(&BLOB[start + from..start + u32_at(ends + id * 4)])
        .expect("codegen writes whole strings")
}

fn list(at: u16) -> impl ExactSizeIterator<Item = &'static str> {
    let start = Section::Lists.start() + usize::from(at) * 2;
    let len = if at == NONE { 0 } else { usize::from(u16_at(start)) };
    (0..len).map(move |i| string(u16_at(start + 2 + i * 2)))
}

/// A struct type of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u16);

/// The type with a qualified name such as `core/v1.PodSpec`.
pub fn type_by_name(name: &str) -> Option<TypeId> {
    let ids = 0..u16::try_from(Section::Types.count()).expect("type numbers are u16");
    let at = search(ids.len(), |i| TypeId(i as u16).name().cmp(name))?;
    Some(TypeId(at as u16))
}

/// The root type of a kind. Kinds that upstream registers in every group (`DeleteOptions`, …) are found in all of them.
pub fn kind(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    let find = |group: &str, version: &str| {
        let at = search(Section::Kinds.count(), |i| {
            let [g, v, k, _] = kind_row(i);
            (string(g), string(v), string(k)).cmp(&(group, version, kind))
        })?;
        Some(TypeId(kind_row(at)[3]))
    };
    let everywhere =
        ["ListOptions", "GetOptions", "DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions"];
    match find(group, version) {
        Some(found) => Some(found),
        None if everywhere.contains(&kind) || kind == "WatchEvent" || group == "meta.k8s.io" => {
            type_by_name(&format!("meta/v1.{kind}"))
        }
        None => None,
    }
}

/// Every registered kind: group, version, kind, type; sorted.
pub fn kinds() -> impl ExactSizeIterator<Item = (&'static str, &'static str, &'static str, TypeId)> {
    (0..Section::Kinds.count()).map(|i| {
        let [g, v, k, t] = kind_row(i);
        (string(g), string(v), string(k), TypeId(t))
    })
}

fn kind_row(i: usize) -> [u16; 4] {
    let at = Section::Kinds.start() + i * 8;
    [u16_at(at), u16_at(at + 2), u16_at(at + 4), u16_at(at + 6)]
}

/// Binary search over a table that is not a slice.
fn search(len: usize, order: impl Fn(usize) -> std::cmp::Ordering) -> Option<usize> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = (low + high) / 2;
        match order(middle) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(middle),
        }
    }
    None
}

// === impl TypeId ===

impl TypeId {
    fn column(self, i: usize) -> u16 {
        u16_at(Section::Types.start() + usize::from(self.0) * 18 + i * 2)
    }

    /// Qualified name: `core/v1.PodSpec`.
    pub fn name(self) -> &'static str {
        string(self.column(0))
    }

    /// Go's own name without the package: `PodSpec`.
    pub fn short_name(self) -> &'static str {
        string(self.column(1))
    }

    /// Go's package name: `v1`.
    pub fn package(self) -> &'static str {
        string(self.column(2))
    }

    /// The JSON fields in the order in which upstream writes them; inlined structs are expanded in place.
    pub fn fields(self) -> impl ExactSizeIterator<Item = Field> {
        let first = self.column(3);
        (0..self.column(4)).map(move |i| Field(first + i))
    }

    /// The struct's own fields as protobuf has them: an inlined struct is one member ([`Field::inline`]). Members with
    /// number 0 (those of `TypeMeta`) are not in protobuf.
    pub fn members(self) -> impl ExactSizeIterator<Item = Field> {
        let first = self.column(5);
        (0..self.column(6)).map(move |i| Field(first + i))
    }

    /// The JSON field of this name.
    pub fn field(self, key: Key) -> Option<Field> {
        let start = Section::ByKey.start() + usize::from(self.column(7)) * 4;
        let at = search(usize::from(self.column(4)), |i| u16_at(start + i * 4).cmp(&key.0))?;
        Some(Field(self.column(3) + u16_at(start + at * 4 + 2)))
    }

    /// Position of a field within [`TypeId::fields`].
    pub fn position(self, field: Field) -> usize {
        usize::from(field.0 - self.column(3))
    }

    /// Server-side apply takes the whole struct as one value.
    pub fn is_atomic(self) -> bool {
        self.column(8) & 1 != 0
    }
}

/// A field of a struct type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(u16);

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Not stated: atomic.
    Unset,
    /// One value.
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Structs, told apart by [`Field::list_keys`].
    Map,
}

// === impl Field ===

impl Field {
    fn column(self, i: usize) -> u16 {
        u16_at(Section::Fields.start() + usize::from(self.0) * 16 + i * 2)
    }

    fn flag(self, bit: u16) -> bool {
        self.column(3) >> bit & 1 != 0
    }

    /// The JSON name's key. Inlined members have none that means anything: see [`Field::inline`].
    pub fn key(self) -> Key {
        Key(self.column(0))
    }

    /// The JSON name; empty for inlined members.
    pub fn name(self) -> &'static str {
        keys::NAMES.get(usize::from(self.column(0))).copied().unwrap_or("")
    }

    /// Go type of the field.
    pub fn ty(self) -> Go {
        Go(self.column(1))
    }

    /// Protobuf field number; 0 when it is not in protobuf.
    pub fn proto(self) -> u16 {
        self.column(2)
    }

    /// Tag `omitempty`: not written when empty as Go understands it (a struct never is).
    pub fn omitempty(self) -> bool {
        self.flag(0)
    }

    /// Tag `omitzero`: not written when it is the zero value (a zero time, a struct of zeros).
    pub fn omitzero(self) -> bool {
        self.flag(1)
    }

    /// Marker `+optional`.
    pub fn optional(self) -> bool {
        self.flag(2)
    }

    /// Marker `+required`.
    pub fn required(self) -> bool {
        self.flag(3)
    }

    /// Server-side apply takes the map or struct as one value.
    pub fn is_atomic(self) -> bool {
        self.flag(6)
    }

    /// Strategic merge: `patchStrategy` has `merge`.
    pub fn patch_merge(self) -> bool {
        self.flag(7)
    }

    /// Strategic merge: `patchStrategy` has `replace`.
    pub fn patch_replace(self) -> bool {
        self.flag(8)
    }

    /// Strategic merge: `patchStrategy` has `retainKeys`.
    pub fn patch_retain_keys(self) -> bool {
        self.flag(9)
    }

    /// A struct whose fields stand in the enclosing one in JSON, and in a message of their own in protobuf.
    pub fn inline(self) -> bool {
        self.flag(10)
    }

    /// Server-side apply's kind of list.
    pub fn list_type(self) -> ListType {
        match self.column(3) >> 12 {
            1 => ListType::Atomic,
            2 => ListType::Set,
            3 => ListType::Map,
            _ => ListType::Unset,
        }
    }

    /// Server-side apply's keys of a list of [`ListType::Map`].
    pub fn list_keys(self) -> impl ExactSizeIterator<Item = &'static str> {
        list(self.column(5))
    }

    /// Strategic merge: the key that tells a list's items apart.
    pub fn merge_key(self) -> Option<Key> {
        Some(self.column(4)).filter(|k| *k != NONE).map(Key)
    }

    /// Upstream's `+default` marker: a JSON value, or `ref(Constant)`.
    pub fn default(self) -> Option<&'static str> {
        Some(self.column(6)).filter(|d| *d != NONE).map(string)
    }
}

/// A Go type: scalar, special type, pointer, slice, map or struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Go(u16);

/// What a [`Go`] type is. Numbers are the blob's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "they are named as in Go")]
pub enum Kind {
    String,
    Bool,
    Int,
    Int32,
    Int64,
    Uint,
    Uint32,
    Uint64,
    Float32,
    Float64,
    /// `[]byte`, base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Go's `1h2m3s`.
    Duration,
    /// `runtime.RawExtension`: any JSON, kept as it is.
    Raw,
    /// The keys of a managed-fields entry: any JSON, kept as it is.
    FieldsV1,
    /// `interface{}`.
    Any,
    Pointer,
    Slice,
    Map,
    Struct,
}

const KINDS: [Kind; 19] = [
    Kind::String,
    Kind::Bool,
    Kind::Int,
    Kind::Int32,
    Kind::Int64,
    Kind::Uint,
    Kind::Uint32,
    Kind::Uint64,
    Kind::Float32,
    Kind::Float64,
    Kind::Bytes,
    Kind::Quantity,
    Kind::IntOrString,
    Kind::Time,
    Kind::MicroTime,
    Kind::Duration,
    Kind::Raw,
    Kind::FieldsV1,
    Kind::Any,
];

// === impl Go ===

impl Go {
    fn at(self) -> usize {
        Section::Nodes.start() + usize::from(self.0) * 12
    }

    /// What it is; a pointer is [`Kind::Pointer`].
    pub fn kind(self) -> Kind {
        match BLOB[self.at()] {
            32 => Kind::Pointer,
            33 => Kind::Slice,
            34 => Kind::Map,
            35 => Kind::Struct,
            scalar => KINDS[usize::from(scalar)],
        }
    }

    /// The type behind a pointer; any other type is itself.
    pub fn pointee(self) -> Go {
        if self.kind() == Kind::Pointer { self.elem() } else { self }
    }

    /// What a pointer, slice or map holds. Panics for other types: callers have looked at the kind.
    pub fn elem(self) -> Go {
        let elem = u16_at(self.at() + 2);
        assert_ne!(elem, NONE, "only pointers, slices and maps have elements");
        Go(elem)
    }

    /// The struct type, also behind a pointer.
    pub fn struct_type(self) -> Option<TypeId> {
        Some(u16_at(self.pointee().at() + 4)).filter(|t| *t != NONE).map(TypeId)
    }

    /// The package and name of a named type (`v1.PodPhase`). Slices with a name are messages of their own in protobuf.
    pub fn named(self) -> Option<&'static str> {
        Some(u16_at(self.at() + 6)).filter(|n| *n != NONE).map(string)
    }

    /// The values upstream knows for a named string.
    pub fn values(self) -> impl ExactSizeIterator<Item = &'static str> {
        list(u16_at(self.at() + 8))
    }

    /// Marker `+enum`: documented as closed.
    pub fn is_enum(self) -> bool {
        BLOB[self.at() + 1] == 1
    }

    /// As Go prints the type in errors: `[]v1.Container`, `map[string]string`, `int32`.
    pub fn go_name(self) -> String {
        if let Some(name) = self.named() {
            return name.to_owned();
        }
        match self.kind() {
            Kind::Pointer => format!("*{}", self.elem().go_name()),
            Kind::Slice => format!("[]{}", self.elem().go_name()),
            Kind::Map => format!("map[string]{}", self.elem().go_name()),
            kind => scalar_name(kind).to_owned(),
        }
    }
}

fn scalar_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::Bool => "bool",
        Kind::Int => "int",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint => "uint",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Float32 => "float32",
        Kind::Float64 => "float64",
        Kind::Bytes => "[]uint8",
        Kind::Quantity => "resource.Quantity",
        Kind::IntOrString => "intstr.IntOrString",
        Kind::Time => "v1.Time",
        Kind::MicroTime => "v1.MicroTime",
        Kind::Duration => "v1.Duration",
        Kind::Raw => "runtime.RawExtension",
        Kind::FieldsV1 => "v1.FieldsV1",
        Kind::Any | Kind::Pointer | Kind::Slice | Kind::Map | Kind::Struct => "interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_key() {
        for (id, name) in keys::NAMES.iter().enumerate() {
            assert_eq!(keys::lookup(name.as_bytes()).map(|k| usize::from(k.0)), Some(id), "{name}");
            assert_eq!(keys::lookup(format!("{name}x").as_bytes()).map(|k| keys::NAMES[usize::from(k.0)]), {
                keys::NAMES.iter().find(|n| **n == format!("{name}x")).copied()
            });
        }
        assert_eq!(keys::lookup(b""), None);
    }

    #[test]
    fn every_type_and_kind_is_found_again() {
        for i in 0..Section::Types.count() {
            let ty = TypeId(i as u16);
            assert_eq!(type_by_name(ty.name()), Some(ty));
            for (at, field) in ty.fields().enumerate() {
                assert_eq!(ty.field(field.key()), Some(field), "{} {}", ty.name(), field.name());
                assert_eq!(ty.position(field), at);
                assert!(!field.ty().go_name().is_empty());
            }
        }
        for (g, v, k, ty) in kinds() {
            assert_eq!(kind(g, v, k), Some(ty), "{g}/{v} {k}");
        }
    }

    #[test]
    fn a_pod_spec_reads_as_upstream_declares_it() {
        let spec = type_by_name("core/v1.PodSpec").expect("a known type");
        let volumes = spec.field(keys::k::VOLUMES).expect("a known field");
        assert_eq!(volumes.ty().go_name(), "[]v1.Volume");
        assert!(volumes.patch_merge() && volumes.patch_retain_keys() && volumes.omitempty());
        assert_eq!(volumes.merge_key(), Some(keys::k::NAME));
        assert_eq!(volumes.proto(), 1);
        let ports =
            type_by_name("core/v1.Container").and_then(|t| t.field(keys::k::PORTS)).expect("a known field");
        assert_eq!(ports.list_type(), ListType::Map);
        assert_eq!(ports.list_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
        let volume = volumes.ty().elem().struct_type().expect("a struct");
        assert_eq!(
            volume.members().map(|m| (m.proto(), m.inline())).collect::<Vec<_>>(),
            [(1, false), (2, true)]
        );
        assert_eq!(kind("apps", "v1", "DeleteOptions").map(TypeId::name), Some("meta/v1.DeleteOptions"));
        assert_eq!(kind("", "v1", "List").map(TypeId::name), Some("core/v1.List"));
    }
}
