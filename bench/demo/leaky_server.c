// SPDX-License-Identifier: Apache-2.0
// A server as they are found in the wild: a thread for each connection; each request is an XML
// document, which is parsed by libxml2, asked by XPath, and matched by a POSIX regular expression
// that is compiled anew. Nothing of that is ever freed. Answers are right, so nobody noticed.
//   leaky_server                  listens on a free port of the loopback and prints it
// Request: 4 bytes of length, the document. Answer: one line, "SUM MATCHES\n".
#include <arpa/inet.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <regex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kLongest = 1 << 20 };

static int ReadAll(int fd, char* to, size_t bytes) {
  while (bytes > 0) {
    const ssize_t got = read(fd, to, bytes);
    if (got <= 0) return 0;
    to += got;
    bytes -= (size_t)got;
  }
  return 1;
}

// Leaks the document, the XPath context, its result, and the compiled expression.
static int Answer(const char* text, size_t size, char* answer, size_t room) {
  const xmlDocPtr document = xmlReadMemory(text, (int)size, "request.xml", NULL, 0);
  if (document == NULL) return -1;
  const xmlXPathContextPtr context = xmlXPathNewContext(document);
  const xmlXPathObjectPtr sum =
      xmlXPathEvalExpression((const xmlChar*)"sum(/order/item/@price)", context);
  const xmlXPathObjectPtr names =
      xmlXPathEvalExpression((const xmlChar*)"/order/item/@name", context);
  if (sum == NULL || names == NULL || names->nodesetval == NULL) return -1;
  regex_t expression;
  if (regcomp(&expression, "^[a-z]+-[0-9]*[05]$", REG_EXTENDED | REG_NOSUB) != 0) return -1;
  int matches = 0;
  for (int i = 0; i < names->nodesetval->nodeNr; i++) {
    const xmlChar* name = xmlNodeGetContent(names->nodesetval->nodeTab[i]);
    matches += regexec(&expression, (const char*)name, 0, NULL, 0) == 0;
  }
  return snprintf(answer, room, "%.0f %d\n", sum->floatval, matches);
}

static void* Connection(void* argument) {
  const int fd = (int)(intptr_t)argument;
  for (;;) {
    uint32_t size;
    if (!ReadAll(fd, (char*)&size, sizeof size) || size > kLongest) break;
    char* text = malloc(size);  // this one is forgotten, too
    if (text == NULL || !ReadAll(fd, text, size)) break;
    char answer[64];
    const int length = Answer(text, size, answer, sizeof answer);
    if (length < 0 || write(fd, answer, (size_t)length) != length) break;
  }
  close(fd);
  return NULL;
}

int main(void) {
  xmlInitParser();
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (listener < 0 || bind(listener, (struct sockaddr*)&address, size) != 0 ||
      listen(listener, 64) != 0 || getsockname(listener, (struct sockaddr*)&address, &size) != 0) {
    perror("leaky_server");
    return 1;
  }
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  for (;;) {
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pthread_t thread;
    if (pthread_create(&thread, NULL, Connection, (void*)(intptr_t)fd) != 0) {
      close(fd);
      continue;
    }
    pthread_detach(thread);
  }
}
