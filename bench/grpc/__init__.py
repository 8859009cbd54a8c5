"""How much of what grpc.aio can do does a relay do?"""
