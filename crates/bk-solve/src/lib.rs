//! One build over any gRPC channel to BuildKit: Solve and Status side by side.
