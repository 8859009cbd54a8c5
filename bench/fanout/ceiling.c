/* The most that the machine can do: a plain loop of send() over sockets, of bytes made beforehand.

   ceiling CONNECTIONS: listens on a free port, prints it, accepts so many connections, and then writes what it reads
   from standard input to each of them. What has piled up there meanwhile is one write. */

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static char data[1 << 20];

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0, one = 1;
    int *sockets = calloc(count + 1, sizeof(int));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (!sockets || bind(listener, (struct sockaddr *)&at, size) || listen(listener, 4096)
        || getsockname(listener, (struct sockaddr *)&at, &size))
        return perror("ceiling"), 1;
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (int i = 0; i < count; i++) {
        if ((sockets[i] = accept(listener, 0, 0)) < 0)
            return perror("ceiling: accept"), 1;
        setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* as the relay's are */
    }
    for (ssize_t length; (length = read(0, data, sizeof data)) > 0;)
        for (int i = 0; i < count; i++)
            if (send(sockets[i], data, length, MSG_NOSIGNAL) != length)
                return perror("ceiling: send"), 1;
    return 0;
}
