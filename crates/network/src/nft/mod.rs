//! nft/mod
