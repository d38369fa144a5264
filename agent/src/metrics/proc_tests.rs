use super::*;

#[test]
fn times_of_a_process_are_found_behind_a_name_with_brackets() {
    let stat =
        "7112 (a) b (c) R 7107 7107 26753 0 -1 4194304 103 0 0 0 250 50 3 4 20 0 1 0 1283865 2998272 427 1";
    let times = ProcessTimes::read(stat).unwrap();
    assert_eq!(times.items, [("utime", 250), ("stime", 50), ("cutime", 3), ("cstime", 4)]);
    assert!((times.seconds() - 3.0).abs() < 1e-9);
    for short in ["", "1 (x) R 1 2", "1 (x"] {
        assert_eq!(ProcessTimes::read(short), None);
    }
}

#[test]
fn only_figures_are_taken_from_a_status() {
    let text = "Name:\tinit\nPid:\t1\nVmPeak:\t    2928 kB\nRssAnon:\t     116 kB\nHugetlbPages:\t       0 kB\n\
                Threads:\t3\nSigBlk:\t0000000000000000\nvoluntary_ctxt_switches:\t7\nVmOdd:\tx kB\n";
    let expected = [("vmpeak", 2928), ("rssanon", 116), ("hugetlbpages", 0), ("voluntary_ctxt_switches", 7)];
    assert_eq!(status(text), expected.map(|(key, value)| (key.to_string(), value)));
    assert_eq!((status_figure(text, "Threads"), status_figure(text, "VmPeak")), (Some(3), Some(2928)));
    assert_eq!(status_figure(text, "Vm"), None);
}

#[test]
fn keys_and_numbers() {
    assert_eq!(keyed("rchar: 6976\nwchar: 0\n"), [("rchar", 6976), ("wchar", 0)]);
    assert_eq!(keyed("nr_free_pages 17\nbroken\nnr_x -\n"), [("nr_free_pages", 17)]);
}

#[test]
fn memory_is_in_bytes_under_the_names_that_tools_know() {
    let text = "MemTotal:       24684 kB\nActive(anon):       1624 kB\nSReclaimable:     4 kB\nNFS_Unstable: 0 kB\n\
                Committed_AS: 1 kB\nAnonHugePages: 2 kB\nHugePages_Total:       3\nHugepagesize: 2048 kB\n\
                DirectMap4k:       26624 kB\n";
    let expected = [
        ("mem_total", 24684 << 10),
        ("active_anon", 1624 << 10),
        ("s_reclaimable", 4 << 10),
        ("nfs_unstable", 0),
        ("committed_as", 1 << 10),
        ("anon_hugepages", 2 << 10),
        ("hugepages_total", 3),
        ("hugepagesize", 2 << 20),
        ("direct_map_4k", 26624 << 10),
    ];
    assert_eq!(meminfo(text), expected.map(|(key, value)| (key.to_string(), value)));
}

#[test]
fn loads_and_tasks() {
    assert_eq!(load("2.25 2.04 0.03 5/136 7109\n"), Some(([2.25, 2.04, 0.03], [5, 136])));
    for bad in ["", "1 2 3", "1 2 3 4 5", "a b c 1/2 3"] {
        assert_eq!(load(bad), None, "{bad:?}");
    }
}

#[test]
fn processor_times_are_milliseconds() {
    let text = "cpu  10 2 3\ncpu0 4 1 1 7 0 0 0 0 0 5 99\nintr 15 0\nctxt 6\n";
    let times = cpu_times(text);
    assert_eq!(times[..3], [("total", "user", 100), ("total", "nice", 20), ("total", "system", 30)]);
    assert_eq!(times[3], ("0", "user", 40));
    assert_eq!(times.last(), Some(&("0", "guest_nice", 50)), "a field that we do not know is left out");
    assert_eq!(times.len(), 13);
}

#[test]
fn interfaces_have_sixteen_counts() {
    let text = "Inter-|   Receive                       |  Transmit\n face |bytes    packets|bytes\n\
                    lo:   34512     478    0    0    0     0          0         0    34513     479    0    0    0     0       0          0\n\
                eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
    let counts = interfaces(text);
    assert_eq!(counts.len(), 32);
    assert_eq!((counts[0], counts[8]), (("lo", "recv_bytes", 34512), ("lo", "sent_bytes", 34513)));
    assert_eq!(counts[31], ("eth0", "sent_compressed", 16));
}

#[test]
fn disks_have_what_the_kernel_counts() {
    let text = " 254       0 vda 3619225 269128 196121506 5858236 245566 1531710 172083328 1011649 0 354568 6986407 1203176 33 112903440 115697 21078 824\n\
                   7       0 loop0 1 0 0 0 0 0 0 0 0 0 0\n\n";
    let counts = disks(text);
    assert_eq!(counts.len(), 17 + 11);
    assert_eq!((counts[0], counts[16]), (("vda", "reads", 3_619_225), ("vda", "time_flushing", 824)));
    assert_eq!(counts[17], ("loop0", "reads", 1));
}

#[test]
fn this_machine_is_understood() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    assert!(ProcessTimes::read(&read("/proc/self/stat")).is_some());
    assert!(load(&read("/proc/loadavg")).is_some());
    assert!(cpu_times(&read("/proc/stat")).iter().any(|(cpu, item, _)| (*cpu, *item) == ("0", "idle")));
    assert!(interfaces(&read("/proc/net/dev")).iter().any(|(name, ..)| *name == "lo"));
    assert!(
        meminfo(&read("/proc/meminfo")).iter().any(|(key, bytes)| key == "mem_available" && *bytes > 1 << 20)
    );
    assert!(keyed(&read("/proc/vmstat")).len() > 50);
    assert!(status(&read("/proc/self/status")).iter().any(|(key, kib)| key == "vmrss" && *kib > 0));
}
