//! BuildKit's wire types: generated gRPC messages, file-mode bits, session headers and ids.
