//! The gRPC server that BuildKit calls back into: attachment, method list and services.
