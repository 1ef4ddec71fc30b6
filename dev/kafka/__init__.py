"""A real Apache Kafka for tests, for chaos and for `make kafka`: no Docker, only Java 17 or newer and Maven.

`install` brings Kafka's own artifacts from Maven Central (pom.xml, zookeeper/pom.xml), `broker` runs one broker or a
cluster, `zookeeper` the oldest broker we support. It lives here and not in `forebay.testing`, which is shipped: these
classes are of no use without the poms beside them, and the product must not depend on a broker's insides.
"""
