"""The packages in a container, as the databases of dpkg, apk and rpm list them."""
