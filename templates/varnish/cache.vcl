# Written by hafog. Changes are overwritten by the next `hafog up` or `hafog clone`.
vcl 4.1;

import std;

# The second balancer, on this machine. It is sick when no application server is well.
backend servers {
    .host = "{{ address }}";
    .port = "{{ port }}";
    .connect_timeout = 1s;
    .first_byte_timeout = 15s;
    .between_bytes_timeout = 15s;
    .probe = {
        .request = "GET {{ check }} HTTP/1.1" "Host: {{ address }}" "Connection: close";
        .interval = 500ms;
        .timeout = 2s;
        .window = 3;
        .threshold = 2;
        .initial = 2;
    }
}

sub vcl_recv {
    # What the first balancer asks: whether this cache is there, with or without application servers.
    if (req.url == "{{ alive }}") {
        return (synth(200, "OK"));
    }
    unset req.http.X-Hafog-First;
    if (req.url ~ "(?i)\.({{ files }})(\?.*)?$") {
        set req.http.X-Hafog-File = "yes";
        unset req.http.Cookie;
    } else {
        unset req.http.X-Hafog-File;
    }
    if (req.url == "{{ check }}" || (req.method != "GET" && req.method != "HEAD")) {
        return (pass);
    }
    set req.grace = {{ grace }}s;
    if (!std.healthy(req.backend_hint)) {
        # Everybody gets what there is for anybody.
        unset req.http.Cookie;
    } elsif (req.restarts == 0) {
        set req.grace = 10s;
    }
}

sub vcl_miss {
    if (req.restarts == 0) {
        set req.http.X-Hafog-First = "yes";
    }
}

sub vcl_backend_response {
    if (beresp.status >= 500) {
        # A copy of before is better, and stays where this does not take its place.
        if (bereq.is_bgfetch || bereq.http.X-Hafog-First) {
            return (abandon);
        }
        set beresp.ttl = 0s;
        set beresp.grace = 0s;
        set beresp.keep = 0s;
        set beresp.uncacheable = true;
        return (deliver);
    }
    # Nothing is kept that nobody said may be kept, but files.
    if (!beresp.http.Cache-Control && !beresp.http.Expires) {
        set beresp.ttl = 0s;
        if (bereq.http.X-Hafog-File && (beresp.status == 200 || beresp.status == 304)) {
            set beresp.ttl = 60s;
        }
    }
    if (bereq.http.X-Hafog-File) {
        unset beresp.http.Set-Cookie;
    }
    set beresp.grace = {{ grace }}s;
}

sub vcl_synth {
    if (req.url == "{{ alive }}") {
        # How hafog knows with which file it runs.
        set resp.http.Content-Type = "text/plain; charset=utf-8";
        set resp.body = "{{ mark }}" + {"
"};
        return (deliver);
    }
    # The servers failed before anybody had noticed. Once more, and now an old copy is good enough.
    if (resp.status >= 500 && req.http.X-Hafog-First) {
        return (restart);
    }
}

sub vcl_backend_error {
    if (bereq.is_bgfetch || bereq.http.X-Hafog-First) {
        return (abandon);
    }
    set beresp.http.Content-Type = "text/plain; charset=utf-8";
    set beresp.http.Retry-After = "5";
    set beresp.body = "503: no application server answers" + {"
"};
    return (deliver);
}
