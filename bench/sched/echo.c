// SPDX-License-Identifier: Apache-2.0
// An echo server over loopback with a thread for each connection. Prints its port, ends when its
// standard input does.
//   echo
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "schedbench.h"

static int listener;
static void* Serves(void* arg) {
  const int fd = (int)(intptr_t)arg;
  char text[4096];
  ssize_t n;
  while ((n = recv(fd, text, sizeof text, 0)) > 0)
    if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) break;
  close(fd);
  return NULL;
}
static void* Accepts(void* arg) {
  pthread_attr_t attr = SmallStacks();
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  for (;;) {
    const int fd = accept(listener, NULL, NULL), on = 1;
    if (fd < 0) break;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pthread_t t;
    Try(pthread_create(&t, &attr, Serves, (void*)(intptr_t)fd), "pthread_create");
  }
  return arg;
}

int main(void) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t size = sizeof address;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr*)&address, size) != 0 || listen(listener, 4096) != 0 ||
      getsockname(listener, (struct sockaddr*)&address, &size) != 0)
    return perror("echo"), 1;
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  Start(Accepts, NULL);
  char c;
  while (read(0, &c, 1) > 0) {
  }
  _exit(0);
}
