//! Messages against bytes written by hand from the facts of the wire.

use bytes::Bytes;
use prost::Message;

use crate::fsutil::packet::PacketType;
use crate::fsutil::{Packet, Stat};
use crate::{
    auth, content, control, filesync, gateway, health, ops, policy_session, rpc_status, secrets, worker,
};

/// Both directions: the message has these bytes, and these bytes are the message.
#[track_caller]
fn assert_wire<M: Message + PartialEq + Default + std::fmt::Debug>(message: &M, bytes: &[u8]) {
    assert_eq!(message.encode_to_vec(), bytes);
    assert_eq!(&M::decode(bytes).unwrap(), message);
}

/// One length-delimited field.
fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let tag = u32::from(number) << 3 | 2;
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(tag.into(), &mut bytes);
    prost::encoding::encode_varint(payload.len() as u64, &mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn the_end_of_a_listing_has_no_bytes() {
    let end = Packet {
        r#type: PacketType::PacketStat.into(),
        ..Packet::default()
    };
    assert_wire(&end, b"");
    assert_eq!(end.encoded_len(), 0);
}

#[test]
fn id_zero_is_absent() {
    assert_wire(
        &Packet {
            r#type: PacketType::PacketReq.into(),
            ..Packet::default()
        },
        &[0x08, 1],
    );
    assert_wire(
        &Packet {
            r#type: PacketType::PacketReq.into(),
            id: 300,
            ..Packet::default()
        },
        &[8, 1, 0x18, 0xac, 2],
    );
    // The end of file 0 is the type alone.
    assert_wire(
        &Packet {
            r#type: PacketType::PacketData.into(),
            ..Packet::default()
        },
        &[0x08, 2],
    );
    assert_wire(
        &Packet {
            r#type: PacketType::PacketFin.into(),
            ..Packet::default()
        },
        &[0x08, 3],
    );
    let data = Packet {
        r#type: 2,
        id: 1,
        data: Bytes::from_static(b"hi"),
        ..Packet::default()
    };
    assert_wire(&data, &[0x08, 2, 0x18, 1, 0x22, 2, b'h', b'i']);
    let error = Packet {
        r#type: 4,
        data: Bytes::from_static(b"no"),
        ..Packet::default()
    };
    assert_wire(&error, &[0x08, 4, 0x22, 2, b'n', b'o']);
}

#[test]
fn an_entry_has_every_field_in_its_place() {
    let stat = Stat {
        path: b"a/\xff".to_vec(),
        mode: 0x8000_01ed,
        uid: 1,
        gid: 2,
        size: 3,
        mod_time: 1_700_000_000_123_456_789,
        linkname: b"\xfe".to_vec(),
        devmajor: 4,
        devminor: 5,
        xattrs: [("user.a".to_owned(), vec![0]), ("user.b".to_owned(), vec![1, 2])].into(),
    };
    let mut entry = vec![0x0a, 3, b'a', b'/', 0xff, 0x10, 0xed, 0x83, 0x80, 0x80, 0x08];
    entry.extend([0x18, 1, 0x20, 2, 0x28, 3]);
    entry.extend([0x30, 0x95, 0x9a, 0x97, 0xec, 0xe3, 0x9f, 0xe7, 0xcb, 0x17]);
    entry.extend([0x3a, 1, 0xfe, 0x40, 4, 0x48, 5]);
    entry.extend([0x52, 11, 0x0a, 6]);
    entry.extend(b"user.a");
    entry.extend([0x12, 1, 0]);
    entry.extend([0x52, 12, 0x0a, 6]);
    entry.extend(b"user.b");
    entry.extend([0x12, 2, 1, 2]);
    assert_wire(&stat, &entry);

    let packet = Packet {
        stat: Some(stat),
        ..Packet::default()
    };
    assert_wire(&packet, &field(2, &entry));
}

#[test]
fn times_before_the_epoch_and_unknown_fields_are_understood() {
    let minus_one = [0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_wire(
        &Stat {
            mod_time: -1,
            ..Stat::default()
        },
        &minus_one,
    );
    let mut newer = vec![0x08, 3];
    newer.extend(field(100, b"later"));
    assert_eq!(
        Packet::decode(&newer[..]).unwrap().r#type(),
        PacketType::PacketFin
    );
    // A type that is not known stays readable as a number.
    let unknown = Packet::decode(&[0x08, 9][..]).unwrap();
    assert_eq!(PacketType::try_from(unknown.r#type).map_err(|err| err.0), Err(9));
}

#[test]
fn damaged_messages_are_errors() {
    for damaged in [
        &[0x22, 5, 1][..],
        &[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x0d, 0],
        &[0x07],
    ] {
        assert!(Packet::decode(damaged).is_err(), "{damaged:x?}");
    }
}

#[test]
fn byte_slices_are_field_one_everywhere() {
    let data = Bytes::from_static(b"xyz");
    let bytes = field(1, b"xyz");
    assert_wire(&control::BytesMessage { data: data.clone() }, &bytes);
    assert_wire(&filesync::BytesMessage { data: data.clone() }, &bytes);
    assert_wire(&crate::ssh::BytesMessage { data: data.clone() }, &bytes);
    assert_wire(&crate::upload::BytesMessage { data }, &bytes);
    assert_wire(
        &secrets::GetSecretResponse {
            data: b"xyz".to_vec(),
        },
        &bytes,
    );
}

#[test]
fn bulk_data_is_a_view_of_the_received_message() {
    let received = Bytes::from(field(1, &[7; 1000]));
    let message = control::BytesMessage::decode(received.clone()).unwrap();
    let start = received.as_ptr() as usize;
    assert!((start..start + received.len()).contains(&(message.data.as_ptr() as usize)));
}

#[test]
fn a_solve_request_has_old_and_new_exporters() {
    let request = control::SolveRequest {
        r#ref: "r".into(),
        exporter_deprecated: "image".into(),
        exporter_attrs_deprecated: [("name".to_owned(), "n".to_owned())].into(),
        session: "s".into(),
        frontend: "dockerfile.v0".into(),
        frontend_attrs: [("b".to_owned(), String::new()), ("a".to_owned(), "1".to_owned())].into(),
        cache: Some(control::CacheOptions::default()),
        entitlements: vec!["network.host".into()],
        internal: true,
        exporters: vec![control::Exporter {
            r#type: "image".into(),
            attrs: [].into(),
        }],
        enable_session_exporter: true,
        source_policy_session: "p".into(),
        compatibility_version: 30,
        proxy_network: true,
        ..control::SolveRequest::default()
    };
    let mut bytes = field(1, b"r");
    bytes.extend(field(3, b"image"));
    bytes.extend(field(4, &[field(1, b"name"), field(2, b"n")].concat()));
    bytes.extend(field(5, b"s"));
    bytes.extend(field(6, b"dockerfile.v0"));
    // Maps are in the order of their keys.
    bytes.extend(field(7, &[field(1, b"a"), field(2, b"1")].concat()));
    bytes.extend(field(7, &field(1, b"b")));
    bytes.extend(field(8, b""));
    bytes.extend(field(9, b"network.host"));
    bytes.extend([0x58, 1]);
    bytes.extend(field(13, &field(1, b"image")));
    bytes.extend([0x70, 1]);
    bytes.extend(field(15, b"p"));
    bytes.extend([0x80, 0x01, 30, 0x88, 0x01, 1]);
    assert_wire(&request, &bytes);
}

#[test]
fn a_status_response_has_four_kinds_of_news() {
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let response = control::StatusResponse {
        vertexes: vec![control::Vertex {
            digest: "d".into(),
            inputs: vec!["i".into()],
            name: "n".into(),
            cached: true,
            started: time(1),
            completed: time(2),
            error: "e".into(),
            progress_group: Some(ops::ProgressGroup {
                id: "g".into(),
                name: String::new(),
                weak: true,
            }),
        }],
        statuses: vec![control::VertexStatus {
            id: "s".into(),
            vertex: "d".into(),
            current: 1,
            total: 2,
            completed: time(3),
            ..control::VertexStatus::default()
        }],
        logs: vec![control::VertexLog {
            vertex: "d".into(),
            timestamp: None,
            stream: 2,
            msg: Bytes::from_static(b"\xff\n"),
        }],
        warnings: vec![control::VertexWarning {
            vertex: "d".into(),
            level: 1,
            short: b"w".to_vec(),
            detail: vec![b"1".to_vec(), b"2".to_vec()],
            url: "u".into(),
            info: Some(ops::SourceInfo {
                filename: "Dockerfile".into(),
                ..ops::SourceInfo::default()
            }),
            ranges: vec![ops::Range {
                start: Some(ops::Position {
                    line: 3,
                    character: 0,
                }),
                end: None,
            }],
        }],
    };
    let vertex = [
        field(1, b"d"),
        field(2, b"i"),
        field(3, b"n"),
        vec![0x20, 1],
        field(5, &[8, 1]),
        field(6, &[8, 2]),
        field(7, b"e"),
        field(8, &[field(1, b"g"), vec![0x18, 1]].concat()),
    ]
    .concat();
    let status = [
        field(1, b"s"),
        field(2, b"d"),
        vec![0x20, 1, 0x28, 2],
        field(8, &[8, 3]),
    ]
    .concat();
    let log = [field(1, b"d"), vec![0x18, 2], field(4, b"\xff\n")].concat();
    let warning = [
        field(1, b"d"),
        vec![0x10, 1],
        field(3, b"w"),
        field(4, b"1"),
        field(4, b"2"),
        field(5, b"u"),
        field(6, &field(1, b"Dockerfile")),
        field(7, &field(1, &[8, 3])),
    ]
    .concat();
    assert_wire(
        &response,
        &[
            field(1, &vertex),
            field(2, &status),
            field(3, &log),
            field(4, &warning),
        ]
        .concat(),
    );
}

#[test]
fn an_error_has_a_code_and_details() {
    let any = prost_types::Any {
        type_url: "t".into(),
        value: b"{}".to_vec(),
    };
    let status = rpc_status::Status {
        code: 2,
        message: "m".into(),
        details: vec![any],
    };
    let detail = [field(1, b"t"), field(2, b"{}")].concat();
    assert_wire(&status, &[vec![8, 2], field(2, b"m"), field(3, &detail)].concat());
}

#[test]
fn operations_keep_their_numbers() {
    let mount = ops::Mount {
        input: -1,
        mount_type: ops::MountType::Ssh.into(),
        ssh_opt: Some(ops::SshOpt {
            id: "default".into(),
            ..ops::SshOpt::default()
        }),
        content_cache: ops::MountContentCache::Off.into(),
        ..ops::Mount::default()
    };
    let minus_one = [8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let bytes = [
        minus_one.to_vec(),
        vec![0x30, 2],
        field(22, &field(1, b"default")),
        vec![0xc0, 0x01, 2],
    ]
    .concat();
    assert_wire(&mount, &bytes);

    let symlink = ops::FileActionSymlink {
        oldpath: "a".into(),
        ..ops::FileActionSymlink::default()
    };
    let action = ops::FileAction {
        action: Some(ops::file_action::Action::Symlink(symlink)),
        ..ops::FileAction::default()
    };
    assert_wire(&action, &field(8, &field(1, b"a")));
    let op = ops::Op {
        op: Some(ops::op::Op::File(ops::FileOp {
            actions: vec![action],
        })),
        constraints: Some(ops::WorkerConstraints {
            filter: vec!["f".into()],
        }),
        ..ops::Op::default()
    };
    let inner = field(4, &field(2, &field(8, &field(1, b"a"))));
    assert_wire(&op, &[inner, field(11, &field(1, b"f"))].concat());
}

#[test]
fn gateway_messages_keep_their_numbers() {
    let returned = gateway::ReturnRequest {
        result: Some(gateway::Result {
            result: Some(gateway::result::Result::Ref(gateway::Ref {
                id: "x".into(),
                def: None,
            })),
            metadata: [("k".to_owned(), b"v".to_vec())].into(),
            attestations: [].into(),
        }),
        error: None,
    };
    let result = [
        field(3, &field(1, b"x")),
        field(10, &[field(1, b"k"), field(2, b"v")].concat()),
    ]
    .concat();
    assert_wire(&returned, &field(1, &result));

    let exit = gateway::ExecMessage {
        process_id: "p".into(),
        input: Some(gateway::exec_message::Input::Exit(gateway::ExitMessage {
            code: 255,
            error: None,
        })),
    };
    assert_wire(&exit, &[field(1, b"p"), field(6, &[8, 0xff, 1])].concat());
}

#[test]
fn other_services_keep_their_numbers() {
    let write = content::WriteContentRequest {
        action: content::WriteAction::Commit.into(),
        r#ref: "r".into(),
        offset: 1,
        data: Bytes::from_static(b"d"),
        ..content::WriteContentRequest::default()
    };
    assert_wire(
        &write,
        &[vec![8, 2], field(2, b"r"), vec![0x28, 1], field(6, b"d")].concat(),
    );
    let serving = health::health_check_response::ServingStatus::Serving;
    assert_wire(
        &health::HealthCheckResponse {
            status: serving.into(),
        },
        &[8, 1],
    );
    let worker = worker::WorkerRecord {
        buildkit_version: Some(worker::BuildkitVersion {
            version: "v0.32".into(),
            ..Default::default()
        }),
        ..worker::WorkerRecord::default()
    };
    assert_wire(&worker, &field(5, &field(2, b"v0.32")));
    let decision = policy_session::DecisionResponse {
        action: 2,
        ..Default::default()
    };
    let result = policy_session::check_policy_response::Result::Decision(decision);
    assert_wire(
        &policy_session::CheckPolicyResponse { result: Some(result) },
        &field(1, &[8, 2]),
    );
    let token = auth::FetchTokenResponse {
        token: "t".into(),
        expires_in: 60,
        issued_at: 1,
    };
    assert_wire(&token, &[field(1, b"t"), vec![0x10, 60, 0x18, 1]].concat());
}

#[test]
fn services_have_their_full_names() {
    // Auth is in the package of the file services, which its directory upstream does not suggest.
    assert_eq!(auth::auth_server::SERVICE_NAME, "moby.filesync.v1.Auth");
    assert_eq!(
        filesync::file_sync_server::SERVICE_NAME,
        "moby.filesync.v1.FileSync"
    );
    assert_eq!(
        filesync::file_send_server::SERVICE_NAME,
        "moby.filesync.v1.FileSend"
    );
    assert_eq!(
        secrets::secrets_server::SERVICE_NAME,
        "moby.buildkit.secrets.v1.Secrets"
    );
    assert_eq!(crate::ssh::ssh_server::SERVICE_NAME, "moby.sshforward.v1.SSH");
    assert_eq!(
        crate::upload::upload_server::SERVICE_NAME,
        "moby.upload.v1.Upload"
    );
    assert_eq!(
        crate::exporter::exporter_server::SERVICE_NAME,
        "moby.exporter.v1.Exporter"
    );
    assert_eq!(
        content::content_server::SERVICE_NAME,
        "containerd.services.content.v1.Content"
    );
    assert_eq!(control::control_server::SERVICE_NAME, "moby.buildkit.v1.Control");
    assert_eq!(
        gateway::llb_bridge_server::SERVICE_NAME,
        "moby.buildkit.v1.frontend.LLBBridge"
    );
    assert_eq!(health::health_server::SERVICE_NAME, "grpc.health.v1.Health");
}
