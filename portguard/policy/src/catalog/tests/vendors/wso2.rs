//! WSO2: counts, and the rows that are not what the heading above them says.

use super::{condition, opens, peers, row, sections, system};
use crate::catalog::{Direction, Inert, Peer, PortSpec, Transport};

#[test]
fn wso2_by_section() {
    let wso2 = system("wso2");
    let spark =
        "Product-specific ports > Data Analytics Server > Ports used by the Spark Analytics Engine";
    let product = |name: &str| format!("Product-specific ports > {name}");
    let expected = [
        ("Common ports > Management console ports".to_owned(), 2),
        (
            "Common ports > Management console ports > WSO2 Enterprise Integrator".to_owned(),
            3,
        ),
        ("Common ports > LDAP server ports".to_owned(), 1),
        ("Common ports > KDC ports".to_owned(), 1),
        ("Common ports > JMX monitoring ports".to_owned(), 2),
        ("Common ports > Clustering ports".to_owned(), 2),
        ("Common ports > Random ports".to_owned(), 2),
        // Ten printed rows; four of them are outbound and have another server at the other end, two are read both ways.
        (product("API Manager"), 10 + 4 + 2 * 2),
        (product("BPS"), 1),
        (
            product("Data Analytics Server > Ports inherited from WSO2 BAM"),
            2,
        ),
        (format!("{spark} > Ports available for all modes"), 8),
        (format!("{spark} > Ports available for the cluster mode"), 5),
        (product("Complex Event Processor"), 4),
        (product("Elastic Load Balancer"), 1),
        (product("ESB"), 2),
        (
            product("Enterprise Integrator > Integration runtime ports"),
            3,
        ),
        (
            product("Enterprise Integrator > EI-Analytics runtime ports"),
            4,
        ),
        (
            product("Enterprise Integrator > EI-Business Process runtime ports"),
            2,
        ),
        (
            product("Enterprise Integrator > EI-Broker runtime ports"),
            7,
        ),
        (product("Identity Server"), 2),
        (product("Message Broker"), 5),
        (product("Machine Learner"), 3),
        (product("Storage Server > Cassandra"), 4),
        (product("Storage Server > HDFS"), 7),
        (product("Enterprise Mobility Manager > Android"), 1),
        (product("Enterprise Mobility Manager > iOS"), 4),
        (product("Enterprise Mobility Manager > API Manager"), 2),
        (product("IoT Server > Default ports"), 8),
        (
            product("IoT Server > Ports required for mobile devices > Android"),
            1,
        ),
        (
            product("IoT Server > Ports required for mobile devices > iOS"),
            4,
        ),
        ("Disabling HTTP Transports".to_owned(), 2),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    assert_eq!(sections(&wso2), expected);
}

#[test]
fn wso2_runtimes_have_their_own_console() {
    let wso2 = system("wso2");
    let consoles = [
        ("ei-integration", 9443),
        ("ei-analytics", 9444),
        ("ei-business-process", 9445),
        ("ei-broker", 9446),
    ];
    for (runtime, own) in consoles {
        for (_, console) in consoles {
            assert_eq!(
                opens(&wso2, runtime, console),
                console == own,
                "{runtime} {console}"
            );
        }
        assert!(!opens(&wso2, runtime, 9763), "{runtime}");
        assert!(opens(&wso2, runtime, 11111), "{runtime}");
        assert!(opens(&wso2, "enterprise-integrator", own), "{own}");
    }
    for product in [
        "api-manager",
        "traffic-manager",
        "analytics",
        "esb",
        "identity-server",
    ] {
        assert!(
            opens(&wso2, product, 9443) && opens(&wso2, product, 9763),
            "{product}"
        );
    }
    assert!(!opens(&wso2, "iot-analytics", 9443) && opens(&wso2, "iot-server", 9443));
}

#[test]
fn wso2_outbound_rows_open_nothing_inwards() {
    let wso2 = system("wso2");
    for port in [7612, 9611, 9711] {
        assert!(!opens(&wso2, "api-manager", port), "{port}");
    }
    assert!(opens(&wso2, "traffic-manager", 9611) && opens(&wso2, "analytics", 7612));
    let publish = row(&wso2, "api-manager-7711-analytics/out");
    assert_eq!(publish.ports[0].to_string(), "7711+offset(analytics)");
    assert_eq!(peers(publish), ["role analytics"]);
    for product in ["emm", "iot"] {
        let push = row(&wso2, &format!("{product}-5228-5230"));
        assert_eq!((push.direction, push.ports.len()), (Direction::Out, 3));
        assert_eq!(push.peers, [Peer::Asn(15169)]);
        for (port, inert) in [(5223, true), (443, true), (2195, false), (2196, false)] {
            let apns = row(&wso2, &format!("{product}-{port}"));
            assert_eq!(apns.direction, Direction::Out);
            assert_eq!(peers(apns), ["prefix 17.0.0.0/8"]);
            assert_eq!(apns.inert == Some(Inert::OtherDevice), inert, "{}", apns.id);
        }
    }
}

#[test]
fn wso2_conditions() {
    let wso2 = system("wso2");
    for (id, expected) in [
        (
            "clustering-45564",
            "option clustering; membership = multicast",
        ),
        ("clustering-4000", "option clustering; membership = wka"),
        ("api-manager-7611", "throttling-publisher = thrift"),
        ("api-manager-9711/out", "throttling-publisher = binary"),
        ("api-manager-8280-8243", "option http-passthru"),
        ("api-manager-8243", "no option http-passthru"),
        ("spark-4040", ""),
        ("spark-7077", "spark-mode = cluster"),
        ("emm-10397", "version >=1.1.0"),
    ] {
        assert_eq!(condition(row(&wso2, id)), expected, "{id}");
    }
    assert_eq!(row(&wso2, "clustering-45564").transports, [Transport::Udp]);
    assert!(wso2.options["jmx"].default && !wso2.options["clustering"].default);
    for (id, transport) in [
        ("random-tcp", Transport::Tcp),
        ("random-udp", Transport::Udp),
    ] {
        let random = row(&wso2, id);
        assert_eq!(
            (&random.ports[..], random.transports[0]),
            (&[PortSpec::Random][..], transport)
        );
        assert!(random.transport_printed);
    }
}
