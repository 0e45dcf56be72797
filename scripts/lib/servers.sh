# shellcheck shell=bash
# The real servers: nginx says its host's name on /, and both serve one shared folder under /files/.

# Starts nginx on all real servers, with a shared folder holding `hello.txt` and `1MiB`.
servers_up() {
    local server
    make_shared_folder
    for server in "${SERVERS[@]}"; do nginx_up "$server"; done
}

make_shared_folder() {
    mkdir -p "$LAB/shared/files"
    echo "the same file, whichever real server you ask" >"$LAB/shared/files/hello.txt"
    head -c 1048576 /dev/urandom >"$LAB/shared/files/1MiB"
}

nginx_up() {
    local server=$1
    mkdir -p "$LAB/$server"
    nginx_configuration "$server" >"$LAB/$server/nginx.conf"
    echo well >"$LAB/$server/health"
    on "$server" "nginx -c $LAB/$server/nginx.conf -e $LAB/$server/error.log" ||
        die "nginx does not start on $server: $(tail -n 3 "$LAB/$server/error.log" 2>/dev/null)"
    wait_until 5 on "$server" "curl -s -m 1 http://$(server_address "$server")/" || die "nginx on $server does not answer"
}

# Ends nginx on SERVER, as a crash would: connections are reset, the ports closed.
nginx_down() {
    local pid
    pid=$(<"$LAB/$1/nginx.pid")
    kill -TERM "$pid"
    wait_until 5 process_gone "$pid" || die "nginx on $1 does not end"
}

process_gone() { [[ -z $(start_time "$1") ]]; }

nginx_configuration() {
    cat <<END
pid $LAB/$1/nginx.pid;
worker_processes 1;
events { worker_connections 8192; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path $LAB/$1/body;
    proxy_temp_path $LAB/$1/proxy;
    fastcgi_temp_path $LAB/$1/fastcgi;
    uwsgi_temp_path $LAB/$1/uwsgi;
    scgi_temp_path $LAB/$1/scgi;
    server {
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        listen 8080 backlog=4096;
        listen 8081 backlog=4096;
        location = / { default_type text/plain; add_header X-Asked "\$remote_addr asked \$server_addr:\$server_port"; return 200 "$1\n"; }
        location = /health { root $LAB/$1; }
        location /files/ { root $LAB/shared; }
    }
}
END
}

# Makes all of them VS/DR real servers, for IPv6 as well.
servers_take_vip() {
    local server
    for server in "${SERVERS[@]}"; do
        on "$server" "set -e; $(server_commands_lvs)
            $(server_commands_ipv6)"
    done
}
